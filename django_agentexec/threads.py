"""Calls of other people's code in threads.

`StopIteration` must not leave a thread that a coroutine waits for: asyncio refuses to hand it over (before Python 3.12
without an error that anybody sees), so that the coroutine would wait forever. Generators and coroutines turn it into a
RuntimeError; so does everything here.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def call(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function; a `StopIteration` that it lets out becomes a RuntimeError."""
    try:
        return function(*args, **kwargs)
    except StopIteration as error:
        raise RuntimeError("A call in a thread raised StopIteration: give next() a default.") from error


class CallExecutor(ThreadPoolExecutor):
    """A thread pool that calls as `call` does; as a loop's default executor it covers `asyncio.to_thread`."""

    has_threads = False
    """Whether anything was ever submitted."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As in `ThreadPoolExecutor`."""
        self.has_threads = True
        return super().submit(call, fn, *args, **kwargs)
