"""The threads in which a worker runs synchronous code: sync handlers, and sync tools of agents."""

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

    Django opens a connection per thread and closes it at the end of a request; a call in a worker
    is no request, so connections would pile up, one per thread and alias, until the server has
    none left. As the default executor of the worker's loop it covers `asyncio.to_thread`, hence every
    sync `@function_tool` of every agent, and sync handlers too:

        loop.set_default_executor(ConnectionClosingExecutor(max_workers=conf.CONCURRENCY))

    Without `max_workers` Python allows only 5 threads more than there are processors. Code under Django's
    `sync_to_async` does not come through here: it has threads of its own.
    """

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As in `CallExecutor`; the future is done once the connections are closed."""
        return super().submit(_call_and_close, fn, *args, **kwargs)


def _call_and_close(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    try:
        return function(*args, **kwargs)
    finally:
        close_connections()


def close_connections() -> None:
    """Close the database connections of the current thread, those kept alive by `CONN_MAX_AGE` included."""
    for connection in connections.all(initialized_only=True):
        try:
            connection.close()
        except DatabaseError:
            # The call's own outcome matters more, and the connection is of no use to anyone.
            logger.warning("Database connection %r could not be closed.", connection.alias, exc_info=True)
