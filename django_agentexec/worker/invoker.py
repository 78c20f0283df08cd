"""The invocation of handlers: async handlers on the event loop, sync handlers in a thread.

Each has its own database connections, which are closed when it ends, and its own scope in the error tracker.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from contextvars import copy_context
from typing import Any, ParamSpec, Protocol, TypeVar

from asgiref.sync import SyncToAsync, ThreadSensitiveContext, sync_to_async
from django.db import connections

from ..threads import CallExecutor

P = ParamSpec("P")
T = TypeVar("T")


class HandlerInvoker(Protocol):
    """The strategy for calling the handlers of a process."""

    def around_async(self) -> AbstractAsyncContextManager[None]:
        """Return the context manager around a call of an async handler."""

    def call_sync(self, function: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        """Start a sync handler and return the future of its result."""


class HandlerThread(Executor):
    """The thread of one handler for `sync_to_async`. Most handlers make no such call, so it starts with the first."""

    def __init__(self) -> None:
        self._executor: CallExecutor | None = None

    @property
    def has_started(self) -> bool:
        """Whether anything was submitted."""
        return self._executor is not None

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a function in the thread, as `CallExecutor` does."""
        if self._executor is None:
            self._executor = CallExecutor(max_workers=1)
        return self._executor.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the thread, if it has started."""
        if self._executor is not None:
            self._executor.shutdown(wait, cancel_futures=cancel_futures)


class WorkerInvoker:
    """The invoker of a worker process."""

    def __init__(self, threads: Executor) -> None:
        self._threads = threads

    @asynccontextmanager
    async def around_async(self) -> AsyncIterator[None]:
        """Give the handler its own thread for `sync_to_async`, and close the connections that were opened there.

        Django's ASGI handler does the same for each request. Without it all attempts of the process would
        share one thread and one connection.
        """
        async with ThreadSensitiveContext() as context:
            # The default executor of asgiref would not convert a StopIteration.
            executor = HandlerThread()
            SyncToAsync.context_to_thread_executor[context] = executor
            try:
                yield
            finally:
                if executor.has_started:
                    await sync_to_async(connections.close_all)()  # after all other calls of the handler
                # The context would start a thread to wait for the executor, which has nothing left to do.
                SyncToAsync.context_to_thread_executor.pop(context, None)
                executor.shutdown(wait=False)

    def call_sync(self, function: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        """Start the handler in a thread, with the context variables of the caller."""
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self._threads, copy_context().run, function, *arguments)


@contextmanager
def isolated_error_tracker() -> Iterator[None]:
    """Give the code inside the block a separate scope in sentry_sdk, if the project has loaded it.

    Tags, user and breadcrumbs of one attempt must not reach the events of another. Sentry keeps the scope in a context
    variable, so tasks and threads that the handler starts share it, and all attempts of a worker would share that of
    the worker's main task.
    """
    isolation_scope = getattr(sys.modules.get("sentry_sdk"), "isolation_scope", None)
    if isolation_scope is None:
        yield
        return
    with isolation_scope() as scope:
        scope.clear_breadcrumbs()  # breadcrumbs of the worker name other activities
        yield
