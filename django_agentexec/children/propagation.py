"""Propagation of ends: a child's end resumes its parent; a parent's failure or cancellation cancels its children.

Implemented as completion hooks. Each change is a separate transaction under the parent's lock, after the commit of
the end that caused it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, OuterRef

from ..activity.completion_hooks import register_hook
from ..activity.store import apply, apply_to_unlocked, database
from ..activity.suspension import Resume
from ..activity.transitions import Cancel
from ..bulk_sql import LockWait, lock_rows
from ..conf import conf
from ..dispatch.push import push_on_commit, stop_on_commit
from ..exceptions import ActivityLocked
from ..models import FAILED_OR_CANCELED, Activity, HookFlag, Status

BATCH = 500  # rows that are locked together
MIN_PAUSE, MAX_PAUSE = 0.005, 0.2  # seconds between two tries to lock the rows of parents
CANCELED_WITH_PARENT = "Canceled, since its parent has ended."


def resume_parents(parents: Iterable[UUID], ended: Iterable[UUID] = ()) -> None:
    """Queue suspended activities whose awaited children have all ended.

    With `ended`, parents whose `blocking_child_id` is not among these ids are skipped. Raises `ActivityLocked` for
    parents whose rows stay locked, after all other parents have been resumed.
    """
    ended, waiting = set(ended), list(parents)
    deadline, pause = time.monotonic() + conf.LOCK_TIMEOUT, MIN_PAUSE
    while waiting := _resume_unlocked(waiting, ended):
        if time.monotonic() >= deadline:
            raise ActivityLocked(waiting, conf.LOCK_TIMEOUT)
        time.sleep(pause)
        pause = min(2 * pause, MAX_PAUSE)


def _resume_unlocked(parents: Sequence[UUID], ended: set[UUID]) -> list[UUID]:
    """Resume the parents whose rows are not locked by other transactions; return the ids of the others."""
    using = database()
    with transaction.atomic(using=using):
        rows = lock_rows(
            Activity,
            parents,
            ("status", "blocking_child_id"),
            using,
            wait=LockWait(conf.LOCK_TIMEOUT, skips_locked=True),
        )
        locked = list(set(parents) - {row.agent_id for row in rows})
        if locked:  # or deleted
            locked = list(Activity.objects.using(using).filter(agent_id__in=locked).values_list("agent_id", flat=True))
        candidates = [row for row in rows if row.is_suspended and (not ended or row.blocking_child_id in ended)]
        if not candidates:
            return locked
        resumed = [
            row
            for row in apply([Resume(agent_id=row.agent_id) for row in candidates])
            if isinstance(row, Activity) and row.status == Status.QUEUED
        ]
        # Requeued even if it runs: the worker that suspended it may not have acknowledged yet. It keeps its place.
        push_on_commit(resumed, requeue_running=True, by_creation_time=True)
    return locked


def cancel_children(parents: Sequence[UUID]) -> None:
    """Cancel the active children of failed or canceled activities; grandchildren follow when the children end.

    The reconciler cancels children whose rows stay locked.
    """
    while _cancel_some_children(parents) == BATCH:
        pass


def _cancel_some_children(parents: Sequence[UUID]) -> int:
    using = database()
    with transaction.atomic(using=using):
        # Under the parents' locks: a parent that is retried at this moment keeps its children.
        rows = lock_rows(Activity, parents, ("status",), using, wait=LockWait(conf.LOCK_TIMEOUT))
        failed = [row.agent_id for row in rows if row.status in FAILED_OR_CANCELED]
        active = Activity.objects.using(using).active().filter(parent_id__in=failed, spawn_key__isnull=False)
        ids = active.values_list("agent_id", flat=True)[:BATCH]
        operations = [Cancel(agent_id=agent_id, message=CANCELED_WITH_PARENT, is_final=False) for agent_id in ids]
        if not operations:
            return 0
        canceled = [row for row in apply_to_unlocked(operations) if isinstance(row, Activity)]
        stop_on_commit(canceled)
    return len(canceled)


def _child_ended(children: Sequence[Activity]) -> None:
    ended = [child.agent_id for child in children]
    spawned = Activity.objects.using(database()).filter(agent_id__in=ended, parent__isnull=False)
    parents = set(spawned.values_list("parent_id", flat=True))
    if parents:
        resume_parents([parent for parent in parents if parent], ended)


def _parent_ended(parents: Sequence[Activity]) -> None:
    failed = [parent.agent_id for parent in parents if parent.status in FAILED_OR_CANCELED]
    if failed:
        cancel_children(failed)


def _resume_missed_parents() -> None:
    still_active = Activity.objects.active().filter(agent_id=OuterRef("blocking_child_id"))
    missed = Activity.objects.using(database()).suspended().exclude(Exists(still_active))
    if parents := list(missed.values_list("agent_id", flat=True)):
        resume_parents(parents)


def _cancel_orphans() -> None:
    active = Activity.objects.using(database()).active()
    orphans = active.filter(spawn_key__isnull=False, parent__status__in=FAILED_OR_CANCELED)
    if parents := list(orphans.values_list("parent_id", flat=True).distinct()):
        cancel_children([parent for parent in parents if parent])


def install() -> None:
    """Register the completion hooks; called when the app is ready."""
    register_hook(HookFlag.CHILD, _child_ended, _resume_missed_parents)
    register_hook(HookFlag.PARENT, _parent_ended, _cancel_orphans)
