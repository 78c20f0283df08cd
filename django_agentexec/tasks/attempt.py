"""What a handler may know of its attempt: the optional third parameter of a task's function."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from uuid import UUID

from ..activity.current import write_and_wait
from ..activity.operations import Operation, Progress
from ..activity.streams import stream_text
from ..models import Activity
from ..values import checked_percentage

Write = Callable[[Operation], "Future[Activity]"]


@dataclass(frozen=True, eq=False)
class Attempt:
    """One execution of an activity.

    A handler asks for it by a third parameter: `def handler(agent_id, context, attempt)`. In a unit test,
    `django_agentexec.testing.make_attempt()` gives one.
    """

    agent_id: UUID
    number: int
    """1 for the first attempt of the activity. A crash of the process does not count as an attempt."""
    fence: int
    """Grows with every claim. Give it to a store that can refuse writes with an older one."""
    write: Write = field(repr=False)
    _canceled: threading.Event = field(default_factory=threading.Event, repr=False)

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt of this activity: for services that refuse to do a thing twice."""
        return str(self.agent_id)

    @property
    def canceled(self) -> bool:
        """Whether to stop now: canceled, timed out, lease lost or worker shutting down.

        Async handlers get a `CancelledError` as well; sync ones must look here from time to time.
        """
        return self._canceled.is_set()

    def cancel(self) -> None:
        """Set `canceled`; called by the worker."""
        self._canceled.set()

    def progress(self, message: str, percentage: float | None = None) -> None:
        """Log `message`, with a percentage of 0 to 100; returns when it is committed.

        Raises `InvalidOption` for another percentage, `StaleAttempt` if this attempt has lost its activity.
        """
        write_and_wait(self, self._progress(message, percentage))

    async def aprogress(self, message: str, percentage: float | None = None) -> None:
        """Do what `progress` does, in an async handler."""
        await asyncio.wrap_future(self.write(self._progress(message, percentage)))

    def stream(self, text: str) -> None:
        """Show `text` to whoever follows the activity live, after what was shown before. Never waits.

        For a model's answer as it comes, in pieces of any size. Kept for `STREAM_TTL` seconds, not in the row.
        """
        if not self.canceled:
            stream_text(self.agent_id, text, self.number)

    def _progress(self, message: str, percentage: float | None) -> Progress:
        return Progress(
            agent_id=self.agent_id, fence=self.fence, message=message, percentage=checked_percentage(percentage)
        )
