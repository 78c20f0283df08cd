"""Parents and children: the end of a child wakes its parent, the failure or cancel of a parent cancels its children.

Registered with `ends`; each change is a transaction of its own, under the parent's lock, after the commit of
the end that led to it.
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
FIRST_PAUSE, MAX_PAUSE = 0.005, 0.2  # seconds between two looks at parents whose rows are locked
CANCELED_WITH_PARENT = "Canceled, since its parent has ended."


def wake(parents: Iterable[UUID], ended: Iterable[UUID] = ()) -> None:
    """Queue those parked activities again whose awaited children have all ended.

    With `ended`, parents that wait for another one in the first place are left as they are. Raises `ActivityLocked`
    for parents whose rows stay locked, after all others were woken.
    """
    ended, waiting = set(ended), list(parents)
    deadline, pause = time.monotonic() + conf.LOCK_TIMEOUT, FIRST_PAUSE
    while waiting := _wake_unlocked(waiting, ended):
        if time.monotonic() >= deadline:
            raise ActivityLocked(waiting, conf.LOCK_TIMEOUT)
        time.sleep(pause)
        pause = min(2 * pause, MAX_PAUSE)


def _wake_unlocked(parents: Sequence[UUID], ended: set[UUID]) -> list[UUID]:
    """Do so for parents whose rows nobody else has locked; return the others."""
    using = database()
    with transaction.atomic(using=using):
        rows = lock_rows(
            Activity,
            parents,
            ("status", "blocking_child_id"),
            using,
            wait=LockWait(conf.LOCK_TIMEOUT, skips_locked=True),
        )
        left = list(set(parents) - {row.agent_id for row in rows})
        if left:
            left = list(Activity.objects.using(using).filter(agent_id__in=left).values_list("agent_id", flat=True))
        concerned = [row for row in rows if row.is_suspended and (not ended or row.blocking_child_id in ended)]
        if not concerned:
            return left
        woken = [
            row
            for row in apply([Resume(agent_id=row.agent_id) for row in concerned])
            if isinstance(row, Activity) and row.status == Status.QUEUED
        ]
        # Again: the worker that parked it may not have acknowledged yet. It rejoins its line where it stood.
        push_on_commit(woken, requeue_running=True, by_creation_time=True)
    return left


def cancel_children(parents: Sequence[UUID]) -> None:
    """Cancel the active children that failed or canceled activities have spawned; their own children follow.

    Those whose rows stay locked are left to the reconciler.
    """
    while _cancel_some_children(parents) == BATCH:
        pass


def _cancel_some_children(parents: Sequence[UUID]) -> int:
    using = database()
    with transaction.atomic(using=using):
        # Under their lock: a parent that is retried in this moment keeps its children.
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
    of = Activity.objects.using(database()).filter(agent_id__in=ended, parent__isnull=False)
    parents = set(of.values_list("parent_id", flat=True))
    if parents:
        wake([parent for parent in parents if parent], ended)


def _parent_ended(parents: Sequence[Activity]) -> None:
    failed = [parent.agent_id for parent in parents if parent.status in FAILED_OR_CANCELED]
    if failed:
        cancel_children(failed)


def _wake_the_forgotten() -> None:
    still_active = Activity.objects.active().filter(agent_id=OuterRef("blocking_child_id"))
    forgotten = Activity.objects.using(database()).suspended().exclude(Exists(still_active))
    if parents := list(forgotten.values_list("agent_id", flat=True)):
        wake(parents)


def _cancel_the_orphaned() -> None:
    orphaned = (
        Activity.objects.using(database())
        .active()
        .filter(spawn_key__isnull=False, parent__status__in=FAILED_OR_CANCELED)
    )
    if parents := list(orphaned.values_list("parent_id", flat=True).distinct()):
        cancel_children([parent for parent in parents if parent])


def install() -> None:
    """Register the hooks; called when the app is ready."""
    register_hook(HookFlag.CHILD, _child_ended, _wake_the_forgotten)
    register_hook(HookFlag.PARENT, _parent_ended, _cancel_the_orphaned)
