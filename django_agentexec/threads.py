"""Blocking code in threads: calls of the project's code, and the work of live updates and of event streams.

A `StopIteration` must not leave a thread that a coroutine awaits: asyncio cannot pass it on (before Python 3.12
without a visible error), and the coroutine would wait forever. Generators and coroutines convert it into a
RuntimeError; so do the functions of this module.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from django.db import close_old_connections

P = ParamSpec("P")
T = TypeVar("T")

MAX_LIVE_THREADS = 4  # of one process; each may hold a database connection


def call(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function and convert a `StopIteration` that leaves it into a RuntimeError."""
    try:
        return function(*args, **kwargs)
    except StopIteration as error:
        raise RuntimeError("A call in a thread raised StopIteration: give next() a default.") from error


class CallExecutor(ThreadPoolExecutor):
    """A thread pool that converts `StopIteration` as `call` does; as default executor it covers `asyncio.to_thread`."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a function in a thread, as `ThreadPoolExecutor` does."""
        return super().submit(call, fn, *args, **kwargs)


_live_executor = ThreadPoolExecutor(MAX_LIVE_THREADS, thread_name_prefix="agentexec-live")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call the blocking `function` in a thread. Database connections are kept for `CONN_MAX_AGE` seconds.

    `sync_to_async` is not used: outside of a request it has one thread for the whole process, in which a slow query of
    one client would delay all others.
    """
    wanted = partial(function, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(_live_executor, _with_fresh_connections, wanted)


def _with_fresh_connections(function: Callable[[], T]) -> T:
    close_old_connections()
    try:
        return call(function)
    finally:
        close_old_connections()
