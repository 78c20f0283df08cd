"""Calls of the project's code in threads.

A `StopIteration` must not leave a thread that a coroutine awaits: asyncio cannot pass it on (before Python 3.12
without a visible error), and the coroutine would wait forever. Generators and coroutines convert it into a
RuntimeError; so do the functions of this module.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def call(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function and convert a `StopIteration` that leaves it into a RuntimeError."""
    try:
        return function(*args, **kwargs)
    except StopIteration as error:
        raise RuntimeError("A call in a thread raised StopIteration: give next() a default.") from error


class CallExecutor(ThreadPoolExecutor):
    """A thread pool that converts `StopIteration` as `call` does; as default executor it covers `asyncio.to_thread`."""

    has_threads = False
    """Whether anything was submitted."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a function in a thread, as `ThreadPoolExecutor` does."""
        self.has_threads = True
        return super().submit(call, fn, *args, **kwargs)
