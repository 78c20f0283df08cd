"""The threads for synchronous code of a worker: sync handlers, and sync tools of agents."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

from django.db import DatabaseError, connections

from ..threads import CallExecutor

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


class ConnectionClosingExecutor(CallExecutor):
    """A thread pool whose threads close their database connections after each call.

    Django opens a connection per thread and closes it at the end of a request. A call in a worker is not a request, so
    one connection per thread and alias would stay open, until the database server has none left. As the default
    executor of the worker's loop this class covers `asyncio.to_thread`, hence every sync `@function_tool` of every
    agent, and also sync handlers:

        loop.set_default_executor(ConnectionClosingExecutor(max_workers=conf.CONCURRENCY))

    Without `max_workers`, Python allows only four threads more than the number of processors. Code under Django's
    `sync_to_async` does not use this executor: it has its own threads.
    """

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a function in a thread, as `CallExecutor` does; the future is done once the connections are closed."""
        return super().submit(_call_and_close, fn, *args, **kwargs)


def _call_and_close(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    try:
        return function(*args, **kwargs)
    finally:
        close_connections()


def close_connections() -> None:
    """Close the database connections of the current thread, including those that `CONN_MAX_AGE` keeps alive."""
    for connection in connections.all(initialized_only=True):
        try:
            connection.close()
        except DatabaseError:
            # The result of the call is more important, and the connection is useless anyway.
            logger.warning("Could not close database connection %r.", connection.alias, exc_info=True)
