"""The squashed migration: it creates the schema of the originals, and databases with some of them migrate as before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

LABEL = "agentexec"
SQUASHED = "0001_squashed_0012_approval_assignee"
LAST = "0012_approval_assignee"
RELEASE = "0003_orchestration"  # of the commit from which the rolling deploy starts
NewDatabase = Callable[[str], BaseDatabaseWrapper]

COLUMNS = """
SELECT table_name, column_name, data_type, character_maximum_length, numeric_precision, numeric_scale, is_nullable,
       column_default, is_identity, collation_name
FROM information_schema.columns WHERE table_schema = 'public' AND table_name LIKE 'agentexec_%'
"""
INDEXES = "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE tablename LIKE 'agentexec_%'"
CONSTRAINTS = """
SELECT conrelid::regclass::text, conname, contype, condeferrable, condeferred, pg_get_constraintdef(oid)
FROM pg_constraint WHERE conrelid::regclass::text LIKE 'agentexec_%'
"""


@pytest.fixture
def new_database(tmp_path: Path, django_db_setup: None, django_db_blocker: Any) -> Iterator[NewDatabase]:
    """Return a function that makes an empty database beside that of the tests."""
    aliases = []

    def make(alias: str) -> BaseDatabaseWrapper:
        name = str(tmp_path / alias)
        if connection.vendor == "postgresql":
            name = f"{connection.settings_dict['NAME']}_{alias}"
            with connection.cursor() as cursor:
                cursor.execute(f'DROP DATABASE IF EXISTS "{name}"')
                cursor.execute(f'CREATE DATABASE "{name}"')
        connections.settings[alias] = {**connection.settings_dict, "NAME": name}
        aliases.append(alias)
        return connections[alias]

    with django_db_blocker.unblock():
        yield make
        for alias in aliases:
            connections[alias].close()
            if connection.vendor == "postgresql":
                with connection.cursor() as cursor:
                    cursor.execute(f'DROP DATABASE "{connections[alias].settings_dict["NAME"]}"')
            del connections[alias]
            del connections.settings[alias]


def migrate(database: BaseDatabaseWrapper, name: str | None, *, originals_only: bool = False) -> None:
    """Migrate forwards or backwards; with `originals_only`, as a release without the squashed migration."""
    executor = MigrationExecutor(database)
    if originals_only:
        executor.loader.replace_migrations = False
        executor.loader.build_graph()
        squashed = executor.loader.replacements.pop((LABEL, SQUASHED))
        executor.loader.graph.remove_replacement_node((LABEL, SQUASHED), squashed.replaces)
    executor.migrate([(LABEL, name)])


def migrate_to_last(database: BaseDatabaseWrapper) -> list[str]:
    """Migrate forwards as the command does, and return the names of the migrations that were executed."""
    executor = MigrationExecutor(database)
    usable = (LABEL, SQUASHED) in executor.loader.graph.nodes
    target = [(LABEL, SQUASHED if usable else LAST)]
    plan = executor.migration_plan(target)
    executor.migrate(target, plan)
    # A pool starts only if no migration is left.
    assert MigrationExecutor(database).migration_plan([(LABEL, SQUASHED)]) == []
    return [migration.name for migration, _ in plan]


def recorded(database: BaseDatabaseWrapper) -> set[str]:
    return {name for app, name in MigrationRecorder(database).applied_migrations() if app == LABEL}


def rows(database: BaseDatabaseWrapper, query: str) -> list[tuple[Any, ...]]:
    with database.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall()


def schema(database: BaseDatabaseWrapper) -> dict[str, set[Any]]:
    """Return tables, columns, defaults, indexes and constraints; the order of columns has no meaning."""
    if database.vendor == "postgresql":
        queries = {"columns": COLUMNS, "indexes": INDEXES, "constraints": CONSTRAINTS}
        return {kind: set(rows(database, query)) for kind, query in queries.items()}
    found = rows(database, "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE tbl_name LIKE 'agentexec_%'")
    return {
        "tables": {(name, part) for kind, name, _, sql in found if kind == "table" for part in parts_of(sql)},
        "indexes": {(table, name, sql) for kind, name, table, sql in found if kind == "index" and sql},
        "rest": {(kind, name) for kind, name, _, _ in found if kind not in ("table", "index")},
    }


def parts_of(sql: str) -> list[str]:
    """Return the columns and constraints of a CREATE TABLE statement."""
    inner, depth, parts = sql[sql.index("(") + 1 : sql.rindex(")")], 0, [""]
    for character in inner:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def store_family(database: BaseDatabaseWrapper) -> None:
    """Store a parent with a child, log lines, a step and a tracker, as a release with three migrations does."""
    state = MigrationExecutor(database).loader.project_state((LABEL, RELEASE))
    model = state.apps.get_model
    activities = model(LABEL, "Activity").objects.using(database.alias)
    parent = activities.create(agent_type="parent", queue="default", metadata={"organization_id": 7}, status="running")
    child = activities.create(
        agent_type="child", queue="default", parent=parent, spawn_key="a", ties=3, spawned_in=2, forgiven=1
    )
    activities.filter(pk=parent.pk).update(waiting_for=child.pk, awaited=[str(child.pk)])
    model(LABEL, "ActivityLog").objects.using(database.alias).create(activity=child, message="begun", status="running")
    model(LABEL, "StepRun").objects.using(database.alias).create(
        activity=parent, name="read", position=0, input_digest="0"
    )
    tracker = model(LABEL, "TrackerState").objects.using(database.alias).create(name="all", batch_id="1", parent=parent)
    model(LABEL, "TrackerMember").objects.using(database.alias).create(
        tracker=tracker, member="a", activity_id=child.pk
    )


Content = dict[str, list[dict[str, str]]]


def content(database: BaseDatabaseWrapper) -> Content:
    """Return the rows of the release's tables, as texts by column."""
    found: Content = {}
    for table in ("activity", "activity_log", "step_run", "tracker", "tracker_member"):
        with database.cursor() as cursor:
            cursor.execute(f"SELECT * FROM agentexec_{table} ORDER BY 1")
            names = [column[0] for column in cursor.description]
            found[table] = [dict(zip(names, map(repr, row), strict=True)) for row in cursor.fetchall()]
    return found


def is_kept(before: Content, after: Content) -> bool:
    """Whether all rows are there, and all their columns have the same values."""
    return all(
        len(rows) == len(after[table])
        and all(row.items() <= other.items() for row, other in zip(rows, after[table], strict=True))
        for table, rows in before.items()
    )


def test_a_fresh_database_has_the_schema_of_the_originals(new_database: NewDatabase) -> None:
    originals, squashed = new_database("originals"), new_database("squashed")
    migrate(originals, LAST, originals_only=True)
    assert migrate_to_last(squashed) == [SQUASHED]

    expected, found = schema(originals), schema(squashed)
    for kind, parts in expected.items():
        assert found[kind] - parts == parts - found[kind] == set(), kind
    assert recorded(squashed) == recorded(originals) | {SQUASHED}

    assert migrate_to_last(originals) == []  # one that has all originals; only the record is added
    assert recorded(originals) == recorded(squashed)


@pytest.mark.parametrize("start", [RELEASE, "0006_labels", LAST])
def test_a_database_with_some_of_the_originals_applies_the_others_and_the_way_back_keeps_every_row(
    new_database: NewDatabase, start: str
) -> None:
    database, fresh = new_database("upgraded"), new_database("fresh")
    migrate(database, RELEASE, originals_only=True)
    store_family(database)
    migrate(database, start, originals_only=True)
    before, schema_before, recorded_before = content(database), schema(database), recorded(database)

    executed = migrate_to_last(database)

    assert SQUASHED not in executed
    assert recorded_before | set(executed) | {SQUASHED} == recorded(database)
    assert is_kept(before, content(database))
    migrate_to_last(fresh)
    assert schema(database) == schema(fresh)

    migrate(database, start)
    assert schema(database) == schema_before
    assert content(database) == before
    assert recorded(database) - {SQUASHED} == recorded_before
    assert migrate_to_last(database) == executed


def test_a_database_of_the_squashed_migration_migrates_back_to_each_original_and_to_nothing(
    new_database: NewDatabase,
) -> None:
    database, originals = new_database("squashed"), new_database("originals")
    migrate_to_last(database)
    migrate(originals, RELEASE, originals_only=True)

    migrate(database, RELEASE)
    assert schema(database) == schema(originals)
    store_family(database)
    before = content(database)
    migrate_to_last(database)
    assert is_kept(before, content(database))

    migrate(database, None)
    assert recorded(database) == set()
    assert not any(schema(database).values())
    assert migrate_to_last(database) == [SQUASHED]


def test_later_migrations_depend_on_an_original() -> None:
    """A migration that depends on the squashed migration would stay applied on the way back to an original migration.

    `makemigrations` writes such a dependency: replace it with `0012_approval_assignee` by hand.
    """
    loader = MigrationLoader(None, replace_migrations=False)

    dependents = [key for key, found in loader.disk_migrations.items() if (LABEL, SQUASHED) in found.dependencies]
    assert dependents == []
