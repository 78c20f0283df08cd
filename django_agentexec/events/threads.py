"""Blocking work of the event loop's followers, in a few threads of its own.

Not through `sync_to_async`: outside of a request it has one thread for the whole process, in which
a slow query of one client would keep all others waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from django.db import close_old_connections

P = ParamSpec("P")
T = TypeVar("T")

# Connections to the database that one process's followers may hold at once.
THREADS = 4
_executor = ThreadPoolExecutor(THREADS, thread_name_prefix="agentexec-events")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what the blocking `function` returns; database connections are kept as long as `CONN_MAX_AGE` says."""
    call = partial(function, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(_executor, _with_fresh_connections, call)


def _with_fresh_connections(call: Callable[[], T]) -> T:
    close_old_connections()
    try:
        return call()
    finally:
        close_old_connections()
