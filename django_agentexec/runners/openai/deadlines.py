"""`Deadline`: the timeout of a call of a model, which does not count waits for a limit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar

Renew = Callable[[], Awaitable[None]]

_current: ContextVar[Deadline | None] = ContextVar("agentexec_deadline", default=None)


class Deadline:
    """Limits the time of a model to `seconds`; None is no limit.

    `renew` is called repeatedly while the call waits for a limit, so that the lease of its breaker does not expire.
    """

    def __init__(self, seconds: float | None, renew: Renew) -> None:
        self.renew = renew
        self._seconds = seconds
        self._timeout: asyncio.Timeout | None = None

    @asynccontextmanager
    async def limit(self, missing: str) -> AsyncIterator[None]:
        """Limit the time of a block. Raises `TimeoutError`, which names what was `missing`."""
        self._timeout = timeout = asyncio.timeout(self._seconds)
        token = _current.set(self)
        try:
            async with timeout:
                yield
        except TimeoutError as error:
            if not timeout.expired():
                raise
            raise TimeoutError(f"{missing} for {self._seconds:g} s.") from error
        finally:
            _current.reset(token)
            self._timeout = None

    def pause(self) -> None:
        """Stop the time."""
        self._reschedule(None)

    def restart(self) -> None:
        """Let the time begin again."""
        if self._seconds is not None:
            self._reschedule(asyncio.get_running_loop().time() + self._seconds)

    def _reschedule(self, when: float | None) -> None:
        if self._timeout is not None and not self._timeout.expired():
            self._timeout.reschedule(when)


@contextmanager
def paused_deadline() -> Iterator[Deadline | None]:
    """Stop the time of the current call, if it has a deadline; it begins again at the end of the block."""
    deadline = _current.get()
    if deadline is None:
        yield None
        return
    deadline.pause()
    try:
        yield deadline
    finally:
        deadline.restart()
