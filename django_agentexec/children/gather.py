"""Gather: the results of children, or the way into parking. Behind `Attempt.gather`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db import connections
from django.db.models import F
from django.db.transaction import TransactionManagementError

from ..activity.store import database
from ..exceptions import ActivityNotFound, InvalidOption, TaskCanceled, TaskFailed
from ..models import Activity
from ..tasks.run import Run, awaited_id, outcome
from .passes import Pass

if TYPE_CHECKING:
    from ..tasks.attempt import Attempt

BATCH = 500  # rows per query


def gather(
    attempt: Attempt,
    own: Pass,
    children: Sequence[Run[Any] | UUID] | None,
    return_exceptions: bool,
    *,
    in_order: bool = True,
) -> tuple[Any, ...]:
    """Return the children's results in order (None: all children), or raise `Parked`. See `Attempt.gather`.

    `in_order`: whether the handler itself has called, and not a task or thread of it.
    """
    load(attempt, own)
    if children is None:
        named = own.gather_all(in_order=in_order)
        ids = _all(attempt, own) if named is None else named
    else:
        ids = [awaited_id(child) for child in children]
    states = _states(ids)
    for agent_id in ids:
        if agent_id not in states:
            raise ActivityNotFound(agent_id)
        parent, spawn_key, _ = states[agent_id]
        if parent != attempt.agent_id or spawn_key is None:
            raise InvalidOption(
                f"Activity {agent_id} was not spawned by activity {attempt.agent_id}, so it would not wake it: spawn "
                "it with `attempt.spawn` (in a pipeline `self.spawn`), or wait with `get_result`, which keeps the slot."
            )
    if children is not None:
        own.gather(attempt.agent_id, in_order=in_order)
    if any(is_active for _, _, is_active in states.values()):
        _check_no_transaction(attempt)
        raise attempt.suspend(list(dict.fromkeys(ids)))
    rows = _ended(list(states))
    return tuple(_result(rows[agent_id], return_exceptions) for agent_id in ids)


def load(attempt: Attempt, own: Pass) -> None:
    """Read what earlier runs of the handler have spawned, where that is not known yet."""
    if own.is_loaded or not attempt.is_parent:
        return
    parents = Activity.objects.using(database()).filter(agent_id=attempt.agent_id)
    parent = parents.only("hook_flags", "fan_out").first()
    if parent is not None:
        own.load(parent, attempt.scope)


def _all(attempt: Attempt, own: Pass) -> list[UUID]:
    """Return the ids of all children of the handler, or step, in the order of their spawning."""
    if not (attempt.is_parent or own.is_loaded):
        return []  # it has spawned none
    rows = Activity.objects.using(database()).spawned_by(attempt.agent_id)
    found = rows.order_by(F("spawn_position").asc(nulls_first=True), "agent_id").values_list("agent_id", "spawn_key")
    scopes = (f"{attempt.scope}#", f"{attempt.scope}/")
    return [agent_id for agent_id, key in found if str(key).startswith(scopes)]


def _check_no_transaction(attempt: Attempt) -> None:
    """Raise inside a transaction of the handler's: leaving it would roll the children back."""
    blocks = connections[database()].atomic_blocks
    if blocks and not getattr(blocks[-1], "_from_testcase", False):  # a test's own is left when the test is over
        raise TransactionManagementError(
            f"Activity {attempt.agent_id} gathers children inside of `transaction.atomic()`. While it waits, its "
            "handler is left, which would roll the transaction back: gather after the block."
        )


def _states(ids: Sequence[UUID]) -> dict[UUID, tuple[UUID | None, str | None, bool]]:
    states: dict[UUID, tuple[UUID | None, str | None, bool]] = {}
    for start in range(0, len(ids), BATCH):
        rows = Activity.objects.using(database()).filter(agent_id__in=ids[start : start + BATCH])
        for row in rows.only("parent", "spawn_key", "status"):
            states[row.agent_id] = (row.parent_id, row.spawn_key, row.is_active)
    return states


def _ended(ids: Sequence[UUID]) -> dict[UUID, Activity]:
    rows: dict[UUID, Activity] = {}
    for start in range(0, len(ids), BATCH):
        some = Activity.objects.using(database()).filter(agent_id__in=ids[start : start + BATCH])
        rows |= {row.agent_id: row for row in some.defer("context", "metadata")}
    return rows


def _result(row: Activity, return_exceptions: bool) -> Any:
    try:
        return outcome(row)
    except (TaskFailed, TaskCanceled) as error:
        if return_exceptions:
            return error
        raise
