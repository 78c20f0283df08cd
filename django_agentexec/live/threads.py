"""Threads for the blocking work of live updates, and the limit of reads per user.

`sync_to_async` is not used: outside of a request it has one thread for the whole process, in which a slow query of one
client would delay all others.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Collection, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import ParamSpec, TypeVar
from weakref import WeakValueDictionary

from django.db import close_old_connections

from ..threads import call

P = ParamSpec("P")
T = TypeVar("T")

MAX_THREADS = 4  # of one process; each may hold a database connection
MAX_READS_PER_USER = 2  # at the same time; fewer than the threads, so that other users are not delayed
MAX_CANCELLATIONS = 3
CANCELLATION_TIMEOUT = 0.5  # seconds

_executor = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="agentexec-live")
_reads: WeakValueDictionary[Hashable, asyncio.Semaphore] = WeakValueDictionary()
_lock = threading.Lock()


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call the blocking `function` in a thread. Database connections are kept for `CONN_MAX_AGE` seconds."""
    wanted = partial(function, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(_executor, _with_fresh_connections, wanted)


@asynccontextmanager
async def read_turn(holder: Hashable) -> AsyncIterator[None]:
    """Wait until fewer than `MAX_READS_PER_USER` reads of this holder run; reads of other holders run in between."""
    key = id(asyncio.get_running_loop()), holder
    with _lock:
        semaphore = _reads.setdefault(key, asyncio.Semaphore(MAX_READS_PER_USER))
    async with semaphore:
        yield


async def end_tasks(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel `tasks` and wait for their end.

    Cancels several times, since the clean-up of a channel layer may replace the cancellation by another error.
    """
    running = {task for task in tasks if not task.done()}
    for _ in range(MAX_CANCELLATIONS):
        for task in running:
            task.cancel()
        if running:
            ended, running = await asyncio.wait(running, timeout=CANCELLATION_TIMEOUT)
            for task in ended:
                task.cancelled() or task.exception()  # retrieved, so that asyncio does not log it


def _with_fresh_connections(function: Callable[[], T]) -> T:
    close_old_connections()
    try:
        return call(function)
    finally:
        close_old_connections()
