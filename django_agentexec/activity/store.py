"""Writes of operations and new rows: any number in one transaction, with a constant number of queries.

`commands` writes single operations, the worker's committer writes batches. A refused operation does not affect the
rest of its batch.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from django.db import DatabaseError, InterfaceError, OperationalError, connections, router, transaction
from django.db.models import Model
from django.utils import timezone
from django.utils.asyncio import async_unsafe

from ..budgets.charges import Ledgers
from ..bulk_sql import Insert, LockWait, Update, can_skip_locked, lock_rows, needs_no_transaction, write
from ..calls.setting_aside import drop_content
from ..conf import conf
from ..current import OwningAttempt
from ..exceptions import ActivityLocked, ActivityNotFound, InvalidTransition, StaleAttempt
from ..models import FINISHED, Activity, ActivityLog
from ..outages import Outage, classify_outage
from ..signals import activities_changed, activity_changed, activity_ended, changes_committed
from .completion_hooks import run_hooks
from .log_lines import line_of
from .transitions import Operation

logger = logging.getLogger(__name__)

Change = tuple[Activity, ActivityLog | None, Operation | None]
"""A changed row, the log line of the change, and the operation (None: the row is new)."""

ApplyResult = Activity | InvalidTransition | ActivityNotFound | ActivityLocked
"""The result of an operation: the row as committed, or the reason why nothing was written."""

TABLE_LOCK_TIMEOUT = 2.0  # seconds that a batch which skips locked rows waits for table locks, as of a migration

# The columns that operations read. Columns that they only write are not loaded, which saves time per row.
READ_FIELDS = (
    "agent_id", "agent_type", "status", "percentage", "queue", "lock_key", "fairness", "priority", "attempt", "retries",
    "max_retries", "crashes", "fence", "started_at", "hook_flags", "blocking_child_id",
    "waiting_for",
)  # fmt: skip


def database() -> str:
    """Return the alias of the database that holds the activities."""
    return router.db_for_write(Activity)


class CommitOutcomeUnknown(OperationalError):
    """A commit without an answer from the database: the transaction may have been committed or not.

    Pass it to the next `apply` of the same operations, which finds out: as long as the commit may still take place,
    its transaction holds the locks of the rows.
    """

    def __init__(self, error: Exception, results: list[ApplyResult], changes: list[Change], now: datetime) -> None:
        super().__init__(*error.args)
        self.results = results
        self.changes = changes
        self.now = now

    def was_committed(self, using: str) -> bool:
        """Return whether the transaction was committed; the caller holds the locks of its rows."""
        ids = [activity.agent_id for activity, _, _ in self.changes]
        lines = ActivityLog.objects.using(using).filter(activity_id__in=ids, created_at=self.now)
        rows = Activity.objects.using(using).filter(agent_id__in=ids, updated_at=self.now)
        return lines.exists() or rows.exists()


def send_change_signals(changes: Sequence[Change]) -> None:
    """Send the public signals of the changes of one commit, in order. Exceptions of receivers are logged."""
    activities_changed.send_robust(Activity, changes=list(changes))
    metadata = _metadata_of_ended(changes) if activity_ended.has_listeners(Activity) else {}
    for activity, line, operation in changes:
        activity_changed.send_robust(Activity, activity=activity, log=line, operation=operation)
        if _is_end(activity, line) and activity.agent_id in metadata:
            activity_ended.send_robust(
                Activity,
                agent_id=activity.agent_id,
                status=activity.status,
                metadata=metadata[activity.agent_id],
            )
        if operation is not None and operation.has_own_signals:
            operation.send_signals()


def _is_end(activity: Activity, line: ActivityLog | None) -> bool:
    # Usage is added after a cancel, too, without a log line.
    return line is not None and line.status in FINISHED and activity.status in FINISHED


def _metadata_of_ended(changes: Sequence[Change]) -> dict[UUID, dict[str, Any]]:
    ended = [activity.agent_id for activity, line, _ in changes if _is_end(activity, line)]
    if not ended:
        return {}
    rows = Activity.objects.using(database()).filter(agent_id__in=ended)
    try:
        return dict(rows.values_list("agent_id", "metadata"))
    except (DatabaseError, InterfaceError):
        logger.exception(
            "Could not send activity_ended for ended activities (%d): their metadata cannot be read.", len(ended)
        )
        return {}


class CommitCallbacks(threading.local):
    """Functions that run after a commit of the current thread; a worker's committer sets other functions."""

    def __init__(self) -> None:
        self.send_signals: Callable[[Sequence[Change]], object] = send_change_signals
        """Send the public signals of these changes."""
        self.run_hooks: Callable[[Sequence[Activity]], object] = run_hooks
        """Run the completion hooks of these ended activities."""


commit_callbacks = CommitCallbacks()


def apply(
    operations: Sequence[Operation], unknown_outcome: CommitOutcomeUnknown | None = None, *, skip_locked: bool = False
) -> list[ApplyResult]:
    """Write `operations` in order, in one transaction: a SELECT, an UPDATE for all, an INSERT for all logs.

    Calls that are charged to budgets add a lock of the ledgers; see `budgets.charges`.

    On PostgreSQL the UPDATE and the INSERT are one statement. `unknown_outcome` is the exception of the last try of
    the same operations; if its transaction was committed, nothing is written again. With `skip_locked`, the result of
    operations whose rows are locked by another transaction is `ActivityLocked`, and the others are written.

    Raises `CommitOutcomeUnknown` if the commit fails, and `ActivityLocked`, with nothing written, if a wait for a lock
    exceeds `LOCK_TIMEOUT`.
    """
    using = database()
    changes: list[Change] = []
    columns: dict[UUID, set[str]] = defaultdict(set)
    related: list[Insert | Update] = []
    is_complete = False
    try:
        with transaction.atomic(using=using):
            rows, locked = _lock(operations, using, skip_locked)
            now = timezone.now()
            if unknown_outcome is not None and _was_committed(unknown_outcome, locked, using):
                _publish_on_commit(unknown_outcome.changes, using)
                return unknown_outcome.results
            charges = [operation.charge for operation in operations if operation.charge is not None]
            ledgers = Ledgers(charges, using) if charges else None
            results = [
                locked.get(operation.agent_id) or _apply_to_row(operation, rows, now, changes, columns, related)
                for operation in operations
            ]
            if changes:
                write([*_updates(changes, columns), *_merged(related), *_log_inserts(changes)], using)
                ended = [activity for activity, line, _ in changes if line and activity.status in FINISHED]
                if ended:
                    drop_content(ended, using)
                if ledgers is not None:
                    ledgers.delete_settled()
                _publish_on_commit(changes, using)
            is_complete = True
    except (DatabaseError, InterfaceError) as error:
        if is_complete and changes and classify_outage(error) is not None:
            raise CommitOutcomeUnknown(error, results, changes, now) from error
        raise
    return results


def apply_to_unlocked(operations: Sequence[Operation]) -> list[ApplyResult]:
    """Write `operations`; the result is `ActivityLocked` for rows that stay locked for `LOCK_TIMEOUT`."""
    try:
        return apply(operations)
    except ActivityLocked:
        if not can_skip_locked(database()):
            raise
        return apply(operations, skip_locked=True)


def apply_one(operation: Operation) -> Activity:
    """Write an operation and return the row, or raise the reason of its refusal."""
    (result,) = apply([operation])
    if isinstance(result, Exception):
        raise result
    return result


@async_unsafe("This write would block the event loop until it is committed; await its async version (a...) instead.")
def write_and_wait(attempt: OwningAttempt, operation: Operation) -> Activity:
    """Write as `attempt`, wait for the commit, and return the row; for sync code.

    Raises the reason of a refusal, and `StaleAttempt` as soon as the activity is lost: while neither the database nor
    the queue is reachable, another worker may start the activity before this write is decided. The fence then decides
    whether the write takes place.
    """
    connection = connections[database()]
    if connection.vendor == "sqlite" and connection.in_atomic_block:
        # The worker's committer would wait for the caller's transaction, and the caller for the committer.
        return apply_one(attempt.adapt(operation))
    written = attempt.write(operation)
    written_or_lost: tuple[Future[Any], ...] = (written, attempt.lost)
    wait(written_or_lost, return_when=FIRST_COMPLETED)
    if not written.done():
        raise StaleAttempt(f"Activity {attempt.agent_id} may belong to another worker: its lease has expired.")
    return written.result()


def insert(
    activities: Sequence[Activity],
    message: str,
    on_commit: Callable[[Sequence[Activity]], object] | None = None,
) -> None:
    """Insert new rows, each with a first log line of this storable text; call `on_commit` with them after the commit.

    In a caller's transaction it uses a savepoint, so that the transaction survives an error.
    """
    using = database()
    changes: list[Change] = []
    for activity in activities:
        activity.latest_log_message, activity.latest_log_timestamp = message, activity.created_at
        changes.append((activity, line_of(activity), None))
    writes = [Insert(Activity, activities), *_log_inserts(changes)]
    with _transaction_for_insert(using):
        write(writes, using)
        if on_commit is not None:
            transaction.on_commit(partial(on_commit, activities), using=using)
        _send_signals_on_commit(changes, using)


def _transaction_for_insert(using: str) -> AbstractContextManager[None]:
    connection = connections[using]
    if connection.in_atomic_block or not connection.get_autocommit() or not needs_no_transaction(using):
        return transaction.atomic(using=using)
    return nullcontext()  # a single statement commits itself, which saves two round trips


def _lock(
    operations: Sequence[Operation], using: str, skip_locked: bool
) -> tuple[dict[UUID, Activity], dict[UUID, ActivityLocked]]:
    """Return the locked rows of the operations, with the columns that they read, and the errors of skipped rows."""
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


def _was_committed(unknown_outcome: CommitOutcomeUnknown, locked: Mapping[UUID, ActivityLocked], using: str) -> bool:
    """Return whether the transaction of an unanswered commit was committed.

    It had locked all its rows, so it has ended as soon as any of these rows is unlocked.
    """
    ids = {activity.agent_id for activity, _, _ in unknown_outcome.changes}
    if ids <= locked.keys():
        raise ActivityLocked(ids)
    return unknown_outcome.was_committed(using)


def _apply_to_row(
    operation: Operation,
    rows: dict[UUID, Activity],
    now: datetime,
    changes: list[Change],
    columns: dict[UUID, set[str]],
    related: list[Insert | Update],
) -> ApplyResult:
    activity = rows.get(operation.agent_id)
    if activity is None:
        return ActivityNotFound(operation.agent_id)
    try:
        operation.prefetch(activity)
        line = operation.apply(activity, now)
    except InvalidTransition as refusal:
        return refusal
    changes.append((activity, line, operation))
    # Fields of `update_fields` that the operation neither read nor set are not loaded, and stay unchanged.
    columns[activity.agent_id].update(filter(activity.__dict__.__contains__, operation.update_fields))
    related.extend(operation.related_writes(activity, now))
    operation.save_related(activity, now)
    return activity


def _updates(changes: list[Change], columns: Mapping[UUID, set[str]]) -> Iterator[Update]:
    """Yield one update per set of changed columns; a batch has a handful of sets."""
    rows = {activity.agent_id: activity for activity, _, _ in changes}
    by_columns: dict[tuple[str, ...], list[Activity]] = defaultdict(list)
    for agent_id, changed_names in columns.items():
        by_columns[tuple(sorted(changed_names))].append(rows[agent_id])
    for names, changed in by_columns.items():
        yield Update(Activity, changed, names)


def _merged(writes: Sequence[Insert | Update]) -> list[Insert | Update]:
    """Combine writes of the same model: one INSERT per model, one UPDATE per set of columns."""
    inserts: dict[type[Model], dict[object, Model]] = defaultdict(dict)
    updates: dict[tuple[type[Model], tuple[str, ...]], dict[object, Model]] = defaultdict(dict)
    for each in writes:
        for row in each.rows:
            if isinstance(each, Insert):
                inserts[each.model][row.pk] = row
            elif row.pk not in inserts[each.model]:  # a change of a row that is inserted in the same batch
                updates[each.model, each.names][row.pk] = row
    return [
        *(Insert(model, list(rows.values())) for model, rows in inserts.items() if rows),
        *(Update(model, list(rows.values()), names) for (model, names), rows in updates.items()),
    ]


def _log_inserts(changes: list[Change]) -> Iterator[Insert]:
    lines = [line for _, line, _ in changes if line]
    if lines:
        yield Insert(ActivityLog, lines)


def _publish_on_commit(changes: list[Change], using: str) -> None:
    """Send the signals of the changes, and run the hooks of ended activities, after the commit."""
    _send_signals_on_commit(changes, using)
    ended = [activity for activity, _, _ in changes if activity.hook_flags and activity.status in FINISHED]
    if ended:
        # Robust: the reconciler runs hooks that fail here.
        transaction.on_commit(partial(commit_callbacks.run_hooks, ended), using=using, robust=True)


def _send_signals_on_commit(changes: list[Change], using: str) -> None:
    """Send the signals of the changes after the commit."""
    transaction.on_commit(partial(_send_signals, changes), using=using, robust=True)


def _send_signals(changes: list[Change]) -> None:
    changes_committed.send_robust(Activity, changes=changes)
    operations = [(activity, operation) for activity, _, operation in changes if operation is not None]
    for activity, operation in operations:
        if operation.acts_after_commit:
            operation.after_commit(activity)
    if any(operation.has_own_signals for _, operation in operations) or _has_receivers():
        commit_callbacks.send_signals(changes)


def _has_receivers() -> bool:
    """Return whether the public signals of changes have receivers."""
    signals = (activity_changed, activities_changed, activity_ended)
    return any(signal.receivers and signal.has_listeners(Activity) for signal in signals)
