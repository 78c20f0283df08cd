"""Schedules in the code: what is refused when it is declared, and how declarations become rows."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.test import override_settings
from pydantic import BaseModel, SecretStr

from django_agentexec import AgentExecError, InvalidOption, Priority, ScheduleError, Task, task
from django_agentexec.schedules import Solar, add_schedule, schedule
from django_agentexec.schedules.declarations import Declaration, declared, forget
from django_agentexec.schedules.models import AgentSchedule
from django_agentexec.schedules.scheduler import Scheduler
from django_agentexec.schedules.sync import sync_declarations
from django_agentexec.tasks import registry
from tests.support.schedule_builders import HOUR, MINUTE, NOON, SECOND, Clock, make_schedule, started
from tests.testapp.agents import Text, Work, shout, work

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def clean_declarations() -> Iterator[None]:
    """Forget what a test declares."""
    yield
    for declaration in declared():
        forget(declaration.name)


def synced() -> AgentSchedule:
    """Let a scheduler start, and return the schedule `s`."""
    sync_declarations(NOON)
    return AgentSchedule.objects.get(name="s")


def declare_again(name: str = "s", when: Any = "0 * * * *", **options: Any) -> None:
    """Do what the next deploy's code does."""
    forget(name)
    add_schedule(name, shout, when, **options)


class Refresh(BaseModel):
    scope: str = "all"


def test_it_makes_a_task_and_its_schedule_of_a_handler() -> None:
    @schedule("s", "*/5 * * * *", context=Refresh(scope="users"), repeat=3)
    def refresh_cache(agent_id: UUID, context: Refresh) -> str:
        return context.scope

    row = synced()

    assert isinstance(refresh_cache, Task)
    assert registry.get("s") is refresh_cache
    assert (row.task, row.context, row.repeat, row.origin) == ("s", {"scope": "users"}, 3, "code")
    assert str(row.crontab) == "*/5 * * * * (m/h/dM/MY/d) UTC"
    assert row.next_run_at == NOON + 5 * MINUTE


def test_above_a_task_it_adds_schedules_only() -> None:
    @schedule("weekly", "0 0 * * 1", context=Refresh(scope="everything"))
    @schedule("s", "0 * * * *")
    @task("refresh_cache", max_retries=7)
    async def refresh_cache(agent_id: UUID, context: Refresh) -> None: ...

    synced()

    assert registry.get("refresh_cache").max_retries == 7
    assert set(AgentSchedule.objects.values_list("name", "task")) == {
        ("s", "refresh_cache"),
        ("weekly", "refresh_cache"),
    }


@pytest.mark.parametrize(
    ("when", "kind", "expected"),
    [
        (timedelta(minutes=90), "interval", "every 90 minutes"),
        (3600, "interval", "every hour"),
        (1.5, "interval", "every 1500000 microseconds"),
        (datetime(2030, 1, 1, tzinfo=UTC), "clocked", "2030-01-01 00:00:00+00:00"),
        (Solar("sunset", 52.52, 13.404954), "solar", "Sunset (52.520000, 13.404954)"),
    ],
)
def test_it_takes_intervals_dates_and_the_sun(when: Any, kind: str, expected: str) -> None:
    add_schedule("s", shout, when)

    assert str(getattr(synced(), kind)) == expected


def test_options_reach_the_row() -> None:
    start = datetime(2026, 2, 1, tzinfo=UTC)
    add_schedule(
        "s",
        "work",
        "0 9 * * *",
        context=Work(journal="j"),
        timezone="Asia/Tokyo",
        start_at=start,
        expires_at=start + 30 * 24 * HOUR,
        misfire="catch_up",
        priority=Priority.HIGH,
        queue="slow",
        metadata={"org": 7},
        description="Why.",
    )

    row = synced()

    assert row.next_run_at == start
    assert (row.misfire, row.priority, row.queue, row.metadata) == ("catch_up", 1, "slow", {"org": 7})
    assert (row.task, row.context["journal"], row.description) == ("work", "j", "Why.")


@pytest.mark.parametrize("priority", ["high", 1, Priority.HIGH])
def test_a_priority_may_be_a_name(priority: Any) -> None:
    add_schedule("s", shout, "0 * * * *", priority=priority)

    assert synced().priority == Priority.HIGH


def test_a_crontab_is_in_the_time_zone_of_the_settings(settings: Any) -> None:
    settings.AGENTEXEC = {"SCHEDULER_TIMEZONE": "Europe/Berlin"}
    add_schedule("s", shout, "0 14 * * *")

    assert synced().next_run_at == NOON + HOUR


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"when": "* * *"}, "five fields"),
        ({"when": "61 * * * *"}, r"is not a valid crontab: .*[^.]\.$"),
        ({"when": 0.5}, "is not a valid time"),
        ({"when": None}, "is not a valid time"),
        ({"when": timedelta(seconds=-1)}, "is not a valid time"),
        ({"when": datetime(2030, 1, 1)}, "has no time zone"),
        ({"start_at": datetime(2030, 1, 1)}, "has no time zone"),
        ({"when": 60, "timezone": "UTC"}, "only crontabs"),
        ({"timezone": "Mars"}, "Time zone 'Mars' does not exist"),
        ({"repeat": 0}, "from 1 to"),
        ({"repeat": 10**10}, "from 1 to"),
        ({"name": "half \ud83d"}, "name of a schedule has 1 to 200 characters"),
        ({"name": "a\x00"}, "name of a schedule has 1 to 200 characters"),
        ({"description": "a\x00"}, "must be text"),
        ({"when": datetime.max.replace(tzinfo=UTC)}, "limits of the calendar"),
        ({"start_at": datetime.min.replace(tzinfo=UTC)}, "limits of the calendar"),
        ({"when": 5_000.5}, "fractions of a second"),
        ({"when": Solar("sunset", float("nan"), 1)}, "not a coordinate"),
        ({"misfire": "later"}, "'skip' or 'catch_up'"),
        ({"context": Refresh()}, "takes a Text, not Refresh"),
        ({"task": work}, "the task needs a Work"),
        ({"start_at": NOON, "expires_at": NOON}, "must be later than start_at"),
        ({"priority": 5}, "Priority 5 is unknown"),
        ({"priority": "urgent"}, "Priority 'urgent' is unknown"),
        ({"queue": "a b"}, "is not a queue name"),
        ({"metadata": {"a": {1}}}, "cannot be stored"),
        ({"name": ""}, "1 to 200"),
    ],
)
def test_what_cannot_work_is_refused_when_it_is_declared(options: dict[str, Any], message: str) -> None:
    arguments = {"name": "s", "task": shout, "when": "0 * * * *", **options}

    with pytest.raises((ScheduleError, InvalidOption), match=message) as error:
        add_schedule(**arguments)

    assert isinstance(error.value, AgentExecError)
    assert declared() == []


def test_two_schedules_of_one_name_are_refused() -> None:
    add_schedule("s", shout, "0 * * * *")
    add_schedule("s", shout, "0 * * * *")  # the same module, imported once more

    with pytest.raises(ScheduleError, match="Two schedules have the name 's'"):
        add_schedule("s", shout, "1 * * * *")


@override_settings(INSTALLED_APPS=["django.contrib.contenttypes", "django_agentexec"])
def test_without_the_app_a_schedule_is_refused() -> None:
    with pytest.raises(ScheduleError, match="INSTALLED_APPS"):
        add_schedule("s", shout, "0 * * * *")


def test_an_unchanged_definition_leaves_an_operators_edits_alone() -> None:
    add_schedule("s", shout, "0 * * * *", context=Text(text="code"))
    synced()
    AgentSchedule.objects.update(context={"text": "operator"}, enabled=False)

    row = synced()

    assert (row.context, row.enabled) == ({"text": "operator"}, False)


def test_a_changed_definition_replaces_an_operators_edits() -> None:
    add_schedule("s", shout, "0 * * * *", context=Text(text="code"))
    row = synced()
    row.context, row.queue = {"text": "operator"}, "elsewhere"
    row.save()
    declare_again(when="30 * * * *", context=Text(text="new code"))

    row = synced()

    assert (row.context, row.queue) == ({"text": "new code"}, "")
    assert row.next_run_at == NOON + 30 * MINUTE


def test_a_changed_definition_turns_nothing_on_that_an_operator_turned_off() -> None:
    add_schedule("s", shout, "0 * * * *")
    synced()
    AgentSchedule.objects.update(enabled=False)
    declare_again(when="30 * * * *")

    row = synced()

    assert (row.enabled, row.next_run_at) == (False, None)
    assert str(row.crontab).startswith("30 ")


def test_a_change_of_kind_leaves_one_kind_of_times() -> None:
    add_schedule("s", shout, "0 * * * *")
    synced()
    declare_again(when=60)

    row = synced()

    assert (row.crontab, str(row.interval)) == (None, "every minute")


def test_a_run_count_survives_a_changed_definition() -> None:
    add_schedule("s", shout, "0 * * * *", repeat=3)
    synced()
    AgentSchedule.objects.update(total_run_count=2)
    declare_again(when="30 * * * *", repeat=3)

    assert synced().total_run_count == 2


def test_what_vanishes_from_the_code_is_disabled_and_comes_back_with_it() -> None:
    add_schedule("s", shout, "0 * * * *")
    synced()

    forget("s")
    gone = synced()
    assert (gone.enabled, gone.next_run_at) == (False, None)

    declare_again()
    back = synced()
    assert (back.enabled, back.next_run_at) == (True, NOON + HOUR)


def test_what_was_made_in_the_admin_is_neither_taken_over_nor_disabled(caplog: pytest.LogCaptureFixture) -> None:
    make_schedule(name="s", context={"text": "admin"})
    make_schedule(name="other")
    add_schedule("s", shout, "0 * * * *")

    row = synced()

    assert (row.context, row.origin) == ({"text": "admin"}, "admin")
    assert AgentSchedule.objects.get(name="other").enabled
    assert "created in the admin" in caplog.text


def test_a_declaration_that_cannot_work_leaves_the_others_alone(caplog: pytest.LogCaptureFixture) -> None:
    add_schedule("bad", "shoot", "0 * * * *")
    add_schedule("s", shout, "0 * * * *")

    assert synced().enabled

    assert "'bad' in the code is ignored: There is no task 'shoot'" in caplog.text
    assert [record.levelno for record in caplog.records if "is ignored" in record.message] == [logging.ERROR]


def test_a_row_that_another_pool_makes_meanwhile_is_no_error() -> None:
    add_schedule("s", shout, "0 * * * *")
    left = ["s"]

    def race(execute: Any, sql: str, *args: Any) -> Any:
        found = execute(sql, *args)
        if left and sql.startswith("SELECT") and AgentSchedule._meta.db_table in sql:
            make_schedule(name=left.pop())
        return found

    with connection.execute_wrapper(race):
        assert synced().enabled
    assert left == []


def test_schedules_share_the_rows_of_their_times() -> None:
    add_schedule("s", shout, "0 * * * *")
    add_schedule("t", shout, "0 * * * *")
    row = synced()

    assert AgentSchedule.objects.get(name="t").crontab == row.crontab


def test_a_starting_scheduler_takes_the_code_over_and_runs_it() -> None:
    add_schedule("s", shout, 10, context=Text(text="from code"))
    clock = Clock(NOON)
    one = Scheduler("one", clock)

    one.step()
    clock.now = NOON + 10 * SECOND
    one.step()

    assert started() == [{"text": "from code"}]


class Secrets(BaseModel):
    token: SecretStr = SecretStr("open sesame")


class Words(BaseModel):
    words: set[str] = {f"word {i}" for i in range(60)}


def test_a_context_that_would_change_on_the_way_is_refused() -> None:
    @task("secrets")
    def secrets(agent_id: UUID, context: Secrets) -> None: ...

    with pytest.raises(ScheduleError, match=r"Schedule 's': .*at token: a SecretStr is stored as asterisks"):
        add_schedule("s", secrets, 60)


def test_a_set_in_a_context_does_not_count_as_a_change_in_the_next_process() -> None:
    @task("words")
    def words(agent_id: UUID, context: Words) -> None: ...

    stored = Declaration(name="s", task=words, when=60).stored_context()["words"]

    assert stored == sorted(stored)  # the order of a set differs in each process
