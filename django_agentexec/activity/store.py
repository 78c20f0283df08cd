"""Writes operations to the rows: many at once, in one transaction, with a constant number of queries.

Called by `commands` for a single change and by the worker's recorder for a batch. Whatever is refused
is refused alone; the rest of the batch is written.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from functools import partial
from uuid import UUID

from django.db import DatabaseError, InterfaceError, OperationalError, connections, router, transaction
from django.utils import timezone

from ..bulk_sql import LockWait, can_skip_locked, lock_rows, needs_no_transaction, write
from ..bulk_sql.fields import Insert, Update
from ..conf import conf
from ..exceptions import ActivityLocked, ActivityNotFound, InvalidTransition
from ..models import FINISHED, Activity, ActivityLog
from ..outages import Outage, classify_outage
from ..signals import changes_committed
from ..validation import storable_text
from .announcements import announce, has_receivers
from .completion_hooks import run_hooks
from .transitions import Operation, line_of

Applied = Activity | InvalidTransition | ActivityNotFound | ActivityLocked
"""What became of an operation: the row as it was committed, or why it was not written."""

TABLE_LOCK_TIMEOUT = 2.0  # seconds that a batch which skips locked rows waits for other locks, such as of a migration

Change = tuple[Activity, ActivityLog | None, Operation | None]
"""A changed row, the log line of the change, and the operation (None: the row is new)."""

# All that operations read; what they only write needs no reading. Fewer columns are less time per row.
READ_FIELDS = (
    "agent_id", "agent_type", "status", "percentage", "queue", "lock_key", "priority", "attempt", "retries",
    "max_retries", "crashes", "fence", "started_at", "hook_flags", "blocking_child_id",
)  # fmt: skip


def database() -> str:
    """Return the alias of the database that holds the activities."""
    return router.db_for_write(Activity)


class CommitOutcomeUnknown(OperationalError):
    """The database did not answer a commit: what it holds may have happened or not.

    Whoever tries again gives it to `apply`, which finds out, and can be sure: as long as the commit may still arrive,
    its transaction has the rows locked.
    """

    def __init__(self, error: Exception, applied: list[Applied], changes: list[Change], now: datetime) -> None:
        super().__init__(*error.args)
        self.applied = applied
        self.changes = changes
        self.now = now

    def has_arrived(self, using: str) -> bool:
        """Whether the changes are there. To be asked with their rows locked."""
        ids = [activity.agent_id for activity, _, _ in self.changes]
        lines = ActivityLog.objects.using(using).filter(activity_id__in=ids, created_at=self.now)
        rows = Activity.objects.using(using).filter(agent_id__in=ids, updated_at=self.now)
        return lines.exists() or rows.exists()


class AfterCommit(threading.local):
    """What follows the commits of the current thread. A thread that must not wait for it hands it to others."""

    def __init__(self) -> None:
        self.announce: Callable[[Sequence[Change]], object] = announce
        """Send the public signals of these changes."""
        self.run_hooks: Callable[[Sequence[Activity]], object] = run_hooks
        """Do what follows from the ends of these activities."""


after_commit = AfterCommit()


def apply(
    operations: Sequence[Operation], unknown_outcome: CommitOutcomeUnknown | None = None, *, skip_locked: bool = False
) -> list[Applied]:
    """Write `operations` in order, in one transaction: a SELECT, an UPDATE for all, an INSERT for all logs.

    On PostgreSQL the last two are one statement. `undecided` is how the last try of the same operations ended: what
    has happened does not happen again. With `skip_locked`, operations whose rows another transaction has locked have
    `ActivityLocked` as their outcome, and the others are written.

    Raises `Undecided` if the commit fails, `ActivityLocked` with nothing written if locks are held for too long.
    """
    using = database()
    changes: list[Change] = []
    columns: dict[UUID, set[str]] = defaultdict(set)
    is_complete = False
    try:
        with transaction.atomic(using=using):
            rows, locked = _lock(operations, using, skip_locked)
            now = timezone.now()
            if unknown_outcome is not None and _has_arrived(unknown_outcome, locked, using):
                _tell_on_commit(unknown_outcome.changes, using)
                return unknown_outcome.applied
            applied = [
                locked.get(operation.agent_id) or _apply_one(operation, rows, now, changes, columns)
                for operation in operations
            ]
            if changes:
                write([*_updates(changes, columns), *_lines(changes)], using)
                _tell_on_commit(changes, using)
            is_complete = True
    except (DatabaseError, InterfaceError) as error:
        if is_complete and changes and classify_outage(error) is not None:
            raise CommitOutcomeUnknown(error, applied, changes, now) from error
        raise
    return applied


def apply_to_unlocked(operations: Sequence[Operation]) -> list[Applied]:
    """Write `operations`; those whose rows stay locked for `LOCK_TIMEOUT` have `ActivityLocked` as their outcome."""
    try:
        return apply(operations)
    except ActivityLocked:
        if not can_skip_locked(database()):
            raise
        return apply(operations, skip_locked=True)


def apply_one(operation: Operation) -> Activity:
    """Write one operation, and return the row; raise why it was refused."""
    (applied,) = apply([operation])
    if isinstance(applied, Exception):
        raise applied
    return applied


def insert(
    activities: Sequence[Activity],
    message: str,
    follow: Callable[[Sequence[Activity]], None] | None = None,
) -> None:
    """Insert new rows, each with its first log line; `follow` registers what is to be done after their commit.

    In a savepoint of the caller's transaction, if there is one: it survives an error.
    """
    using = database()
    changes: list[Change] = []
    message = storable_text(message)
    for activity in activities:
        activity.latest_log_message, activity.latest_log_timestamp = message, activity.created_at
        changes.append((activity, line_of(activity), None))
    update_fields = [Insert(Activity, activities), *_lines(changes)]
    with _transaction_for_insert(using):
        write(update_fields, using)
        if follow is not None:
            follow(activities)
        _announce_on_commit(changes, using)


def _transaction_for_insert(using: str) -> AbstractContextManager[None]:
    connection = connections[using]
    if connection.in_atomic_block or not connection.get_autocommit() or not needs_no_transaction(using):
        return transaction.atomic(using=using)
    return nullcontext()  # one statement commits itself, which saves two round trips


def _lock(
    operations: Sequence[Operation], using: str, skip_locked: bool
) -> tuple[dict[UUID, Activity], dict[UUID, ActivityLocked]]:
    """Return the operations' rows, locked, with the columns that they read, and what is known of the skipped ones."""
    ids = list({operation.agent_id for operation in operations})
    names = {*READ_FIELDS, *(name for operation in operations for name in operation.read_fields)}
    seconds = TABLE_LOCK_TIMEOUT if skip_locked else conf.LOCK_TIMEOUT
    try:
        found = lock_rows(Activity, ids, sorted(names), using, wait=LockWait(seconds, skips_locked=skip_locked))
    except DatabaseError as error:
        if classify_outage(error) is Outage.LOCKED:
            raise ActivityLocked(ids, seconds) from error
        raise
    rows = {row.agent_id: row for row in found}
    if not skip_locked or len(rows) == len(ids) or not can_skip_locked(using):
        return rows, {}
    missing = Activity.objects.using(using).filter(agent_id__in=[agent_id for agent_id in ids if agent_id not in rows])
    return rows, {
        agent_id: ActivityLocked([agent_id], agent_type=agent_type)
        for agent_id, agent_type in missing.values_list("agent_id", "agent_type")
    }


def _has_arrived(unknown_outcome: CommitOutcomeUnknown, locked: Mapping[UUID, ActivityLocked], using: str) -> bool:
    """Whether the changes of an unanswered commit are there.

    Its transaction had locked all their rows, so it is over as soon as one of them is free.
    """
    ids = {activity.agent_id for activity, _, _ in unknown_outcome.changes}
    if ids <= locked.keys():
        raise ActivityLocked(ids)
    return unknown_outcome.has_arrived(using)


def _apply_one(
    operation: Operation,
    rows: dict[UUID, Activity],
    now: datetime,
    changes: list[Change],
    columns: dict[UUID, set[str]],
) -> Applied:
    activity = rows.get(operation.agent_id)
    if activity is None:
        return ActivityNotFound(operation.agent_id)
    try:
        operation.prefetch(activity)
        line = operation.apply(activity, now)
    except InvalidTransition as refusal:
        return refusal
    changes.append((activity, line, operation))
    # What it may change, and neither read nor changed this time, is not loaded.
    columns[activity.agent_id].update(filter(activity.__dict__.__contains__, operation.update_fields))
    operation.save_related(activity, now)
    return activity


def _updates(changes: list[Change], columns: Mapping[UUID, set[str]]) -> Iterator[Update]:
    """Yield the changed columns: one update per set of them, of which a batch has a handful."""
    rows = {activity.agent_id: activity for activity, _, _ in changes}
    by_columns: dict[tuple[str, ...], list[Activity]] = defaultdict(list)
    for agent_id, changed_names in columns.items():
        by_columns[tuple(sorted(changed_names))].append(rows[agent_id])
    for names, changed in by_columns.items():
        yield Update(Activity, changed, names)


def _lines(changes: list[Change]) -> Iterator[Insert]:
    lines = [line for _, line, _ in changes if line]
    if lines:
        yield Insert(ActivityLog, lines)


def _tell_on_commit(changes: list[Change], using: str) -> None:
    """Tell of the changes, and of the ends among them, once they are committed."""
    _announce_on_commit(changes, using)
    ended = [activity for activity, _, _ in changes if activity.hook_flags and activity.status in FINISHED]
    if ended:
        # Robust: what it cannot do now, the reconciler does.
        transaction.on_commit(partial(after_commit.run_hooks, ended), using=using, robust=True)


def _announce_on_commit(changes: list[Change], using: str) -> None:
    """Tell of the changes once they are committed."""
    transaction.on_commit(partial(_announce, changes), using=using, robust=True)


def _announce(changes: list[Change]) -> None:
    changes_committed.send_robust(Activity, changes=changes)
    if has_receivers():
        after_commit.announce(changes)
