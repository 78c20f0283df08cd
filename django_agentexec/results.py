"""Results: wait for activities to end, and return their results in the declared types."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, TypeAlias, TypeVar, overload
from uuid import UUID

from asgiref.sync import sync_to_async

from .activity.waiting import await_for_end, check_not_own, wait_for_end
from .activity.waiting import watching as watching
from .blocking import blocking
from .tasks.run import Run, awaited_id, outcome
from .validation import validate_timeout

T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")

Timeout: TypeAlias = float | timedelta | None


@overload
def get_result(task: Run[T], timeout: Timeout = 300) -> T: ...
@overload
def get_result(task: UUID | str, timeout: Timeout = 300) -> Any: ...
@blocking
def get_result(task: Run[Any] | UUID | str, timeout: Timeout = 300) -> Any:
    """Wait for an activity to complete, up to `timeout` seconds, and return its result.

    `task` is the handle that `enqueue` returned, or an `agent_id`. `timeout` may be a timedelta, or None for no limit.
    Raises `TaskFailed`, `TaskCanceled`, `ActivityNotFound`, and `ResultTimeout` (a `TimeoutError`), after which the
    activity continues to run. Inside the transaction that enqueued it no result can arrive: that raises Django's
    `TransactionManagementError`. A handler that waits for its own activity, or for an ancestor that is suspended until
    it ends, gets `InvalidOption`.
    """
    return outcome(wait_for_end(awaited_id(task), timeout))


@overload
async def aget_result(task: Run[T], timeout: Timeout = 300) -> T: ...
@overload
async def aget_result(task: UUID | str, timeout: Timeout = 300) -> Any: ...
async def aget_result(task: Run[Any] | UUID | str, timeout: Timeout = 300) -> Any:
    """Async version of `get_result`."""
    return await sync_to_async(outcome)(await await_for_end(awaited_id(task), timeout))


@overload
def gather(task: Run[T1], /, *, timeout: Timeout = 300) -> tuple[T1]: ...
@overload
def gather(task: Run[T1], task2: Run[T2], /, *, timeout: Timeout = 300) -> tuple[T1, T2]: ...
@overload
def gather(task: Run[T1], task2: Run[T2], task3: Run[T3], /, *, timeout: Timeout = 300) -> tuple[T1, T2, T3]: ...
@overload
def gather(
    task: Run[T1], task2: Run[T2], task3: Run[T3], task4: Run[T4], /, *, timeout: Timeout = 300
) -> tuple[T1, T2, T3, T4]: ...
@overload
def gather(
    task: Run[T1], task2: Run[T2], task3: Run[T3], task4: Run[T4], task5: Run[T5], /, *, timeout: Timeout = 300
) -> tuple[T1, T2, T3, T4, T5]: ...
@overload
def gather(*tasks: Run[T], timeout: Timeout = 300) -> tuple[T, ...]: ...
@overload
def gather(*tasks: Run[Any] | UUID | str, timeout: Timeout = 300) -> tuple[Any, ...]: ...
@blocking
def gather(*tasks: Run[Any] | UUID | str, timeout: Timeout = 300) -> tuple[Any, ...]:
    """Wait for all of `tasks`, up to `timeout` seconds in total (or a timedelta, or None), and return their results.

    Raises as `get_result` does, for the first task (in order) without a result, and `TypeError` before any wait for
    an argument that cannot be awaited, such as a list of handles.
    """
    ids, deadline = _ids(tasks), time.monotonic() + validate_timeout(timeout)
    return tuple([outcome(wait_for_end(agent_id, max(0.0, deadline - time.monotonic()))) for agent_id in ids])


@overload
async def agather(task: Run[T1], /, *, timeout: Timeout = 300) -> tuple[T1]: ...
@overload
async def agather(task: Run[T1], task2: Run[T2], /, *, timeout: Timeout = 300) -> tuple[T1, T2]: ...
@overload
async def agather(task: Run[T1], task2: Run[T2], task3: Run[T3], /, *, timeout: Timeout = 300) -> tuple[T1, T2, T3]: ...
@overload
async def agather(
    task: Run[T1], task2: Run[T2], task3: Run[T3], task4: Run[T4], /, *, timeout: Timeout = 300
) -> tuple[T1, T2, T3, T4]: ...
@overload
async def agather(
    task: Run[T1], task2: Run[T2], task3: Run[T3], task4: Run[T4], task5: Run[T5], /, *, timeout: Timeout = 300
) -> tuple[T1, T2, T3, T4, T5]: ...
@overload
async def agather(*tasks: Run[T], timeout: Timeout = 300) -> tuple[T, ...]: ...
@overload
async def agather(*tasks: Run[Any] | UUID | str, timeout: Timeout = 300) -> tuple[Any, ...]: ...
async def agather(*tasks: Run[Any] | UUID | str, timeout: Timeout = 300) -> tuple[Any, ...]:
    """Async version of `gather`."""
    # Sequential waits take no longer than parallel ones, and leave no waiter behind when one of them fails.
    ids, deadline = _ids(tasks), time.monotonic() + validate_timeout(timeout)
    return tuple([await aget_result(agent_id, max(0.0, deadline - time.monotonic())) for agent_id in ids])


def _ids(tasks: Sequence[object]) -> list[UUID]:
    ids = [awaited_id(task) for task in tasks]
    for agent_id in ids:
        check_not_own(agent_id)
    return ids
