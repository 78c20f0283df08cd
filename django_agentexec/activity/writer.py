"""Writes operations to the rows: many at once, in one transaction, with a constant number of queries.

Called by `commands` for a single change and by the worker's recorder for a batch. Whatever is refused
is refused alone; the rest of the batch is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any
from uuid import UUID

from django.db import connections, router, transaction
from django.db.models import Field
from django.utils import timezone

from ..exceptions import ActivityNotFound, InvalidTransition
from ..models import Activity, ActivityLog
from ..signals import activity_changed
from ..values import storable_text
from .operations import Operation, Start

Applied = Activity | InvalidTransition | ActivityNotFound
"""What became of an operation: the row as it was committed, or why it was refused."""

Change = tuple[Activity, ActivityLog | None]

# The columns an operation may change; `context`, `metadata` and identity never change.
STATE_FIELDS = (
    "status", "percentage", "latest_log_message", "latest_log_timestamp", "updated_at", "started_at",
    "finished_at", "result", "usage", "error", "traceback", "run_after", "attempt", "retries", "crashes",
    "fence", "worker",
)  # fmt: skip
_READ_ALWAYS = ("agent_id", "agent_type", "queue", "lock_key", "priority", "max_retries", "created_at")


def database() -> str:
    """Return the alias of the database that holds the activities."""
    return router.db_for_write(Activity)


def apply(operations: Sequence[Operation]) -> list[Applied]:
    """Write `operations` in order, in one transaction: a SELECT, an UPDATE for all, an INSERT for all logs."""
    using = database()
    changes: list[Change] = []
    with transaction.atomic(using=using):
        rows = _lock(operations, using)
        applied = [_apply_one(operation, rows, changes) for operation in operations]
        if changes:
            _save({activity.agent_id: activity for activity, _ in changes}, using)
            _announce_on_commit(changes, using)
    return applied


def apply_one(operation: Operation) -> Activity:
    """Write one operation, and return the row; raise why it was refused."""
    (applied,) = apply([operation])
    if isinstance(applied, Exception):
        raise applied
    return applied


def insert(activities: Sequence[Activity], message: str) -> None:
    """Insert new rows, each with its first log line, in the caller's transaction."""
    using = database()
    changes: list[Change] = []
    message = storable_text(message)
    for activity in activities:
        activity.latest_log_message, activity.latest_log_timestamp = message, activity.created_at
        line = ActivityLog(
            activity_id=activity.agent_id, message=message, status=activity.status, created_at=activity.created_at
        )
        changes.append((activity, line))
    Activity.objects.using(using).bulk_create(activities, batch_size=1_000)
    _announce_on_commit(changes, using)


def _lock(operations: Sequence[Operation], using: str) -> dict[UUID, Activity]:
    """Return the operations' rows, locked, in the order of their ids, so that two writers cannot deadlock."""
    ids = {operation.agent_id for operation in operations}
    # Without the key: whoever has inserted a reference to the row, such as a handler in the middle of its own
    # transaction, does not have to commit first.
    no_key = connections[using].features.has_select_for_no_key_update
    locked = Activity.objects.using(using).select_for_update(no_key=no_key)
    rows = locked.filter(agent_id__in=ids).order_by("agent_id")
    if not any(isinstance(operation, Start) for operation in operations):
        rows = rows.only(*_READ_ALWAYS, *STATE_FIELDS)  # only a start needs the context
    return {row.agent_id: row for row in rows}


def _apply_one(operation: Operation, rows: dict[UUID, Activity], changes: list[Change]) -> Applied:
    activity = rows.get(operation.agent_id)
    if activity is None:
        return ActivityNotFound(operation.agent_id)
    try:
        line = operation.apply(activity, timezone.now())
    except InvalidTransition as refusal:
        return refusal
    changes.append((activity, line))
    return activity


def _save(activities: dict[UUID, Activity], using: str) -> None:
    """Update all rows by one prepared statement. The ORM's `bulk_update` costs ten times as much here."""
    connection = connections[using]
    sql, fields = _update_statement(using)
    rows = [
        [field.get_db_prep_save(getattr(activity, field.attname), connection) for field in fields]
        for activity in activities.values()
    ]
    with connection.cursor() as cursor:
        cursor.executemany(sql, rows)


@cache
def _update_statement(using: str) -> tuple[str, list[Field[Any, Any]]]:
    quote = connections[using].ops.quote_name
    meta = Activity._meta
    by_name: dict[str, Field[Any, Any]] = {field.name: field for field in meta.concrete_fields}
    fields = [by_name[name] for name in (*STATE_FIELDS, meta.pk.name)]
    *columns, key = [f"{quote(str(field.column))} = %s" for field in fields]
    return f"UPDATE {quote(meta.db_table)} SET {', '.join(columns)} WHERE {key}", fields


def _announce_on_commit(changes: list[Change], using: str) -> None:
    """Insert the log lines, and tell of the changes once they are committed."""
    ActivityLog.objects.using(using).bulk_create([line for _, line in changes if line], batch_size=1_000)
    if activity_changed.has_listeners(Activity):
        transaction.on_commit(lambda: _announce(changes), using=using, robust=True)


def _announce(changes: list[Change]) -> None:
    for activity, line in changes:
        activity_changed.send_robust(Activity, activity=activity, log=line)
