"""Blocking work of the event loop's followers, in a few threads of its own.

Not through `sync_to_async`: outside of a request it has one thread for the whole process, in which
a slow query of one client would keep all others waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from functools import partial
from typing import ParamSpec, TypeVar

from django.db import close_old_connections

from ..threads import CallExecutor

P = ParamSpec("P")
T = TypeVar("T")

# Connections to the database that one process's followers may hold at once.
THREADS = 4
CANCELLATIONS = 3
CANCELLATION_TIMEOUT = 0.5  # seconds
_executor = CallExecutor(THREADS, thread_name_prefix="agentexec-events")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what the blocking `function` returns; database connections are kept as long as `CONN_MAX_AGE` says."""
    call = partial(function, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(_executor, _with_fresh_connections, call)


async def end_tasks(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel `tasks` and wait for their end.

    More than once, since a channel layer's own clean-up may replace the cancellation by another error.
    """
    running = {task for task in tasks if not task.done()}
    for _ in range(CANCELLATIONS):
        for task in running:
            task.cancel()
        if running:
            ended, running = await asyncio.wait(running, timeout=CANCELLATION_TIMEOUT)
            for task in ended:
                task.cancelled() or task.exception()  # looked at, so that nobody complains that it was not


def _with_fresh_connections(call: Callable[[], T]) -> T:
    close_old_connections()
    try:
        return call()
    finally:
        close_old_connections()
