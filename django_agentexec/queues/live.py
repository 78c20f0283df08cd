"""What live updates keep beside the queue: streamed text for a while, and who is watching right now.

Part of a backend's contract (`Queue.live`). Nothing here is needed for work to be done: a store that loses
everything costs the watchers a moment.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from ..parsing import parse_digits

START = "0-0"
"""The position before the first piece of every stream."""


def is_stream_id(text: object) -> bool:
    """Whether `text` can be a position in a stream, as `Chunk.stream_id` gives them: two numbers of 63 bits."""
    # Redis has 64 bits, but refuses the largest of its positions as one to read after.
    parts = text.split("-") if isinstance(text, str) else []
    return len(parts) == 2 and all(parse_digits(part) is not None for part in parts)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of the text that a run streams."""

    agent_id: UUID
    text: str
    attempt: int = 0
    """The attempt that wrote it; 0 if none did."""
    stream_id: str = ""
    """Its place, given by the store; later pieces of an activity have later ones."""
    fence: int = 0
    """The fence of the claim that wrote it; 0 outside of a worker. Under a new fence the text begins again."""
    offset: int = -1
    """Characters that `writer` wrote before it under this fence; -1 if unknown. A jump is a gap."""
    writer: str = ""
    """The process that wrote it."""
    label: str = ""
    """Names the agent that wrote it where several write at once."""
    retracts: bool = False
    """Whether it takes back all text before it."""


class LiveStore(ABC):
    """Bounded and forgetful. Verbs raise `QueueUnavailable`; all are safe to call from several threads."""

    @abstractmethod
    def append(self, chunks: Sequence[Chunk]) -> None:
        """Add pieces to their activities' streams; one round trip. One that `retracts` removes what is there.

        A stream keeps about the last `STREAM_MAX_ENTRIES` pieces, until `STREAM_TTL` seconds after the last.
        """

    @abstractmethod
    def read(self, after: Mapping[UUID, str], limit: int) -> list[Chunk]:
        """Return up to `limit` pieces of each of these activities, after these positions, in order."""

    @abstractmethod
    def at(self, positions: Mapping[UUID, str]) -> dict[UUID, Chunk]:
        """Return the pieces at exactly these positions, as far as they are still kept."""

    @abstractmethod
    def watch(self, topics: Sequence[str], seconds: float) -> None:
        """Let it be known that somebody watches `topics` for the next `seconds`."""

    @abstractmethod
    def watched(self) -> frozenset[str]:
        """Return the topics that are being watched."""
