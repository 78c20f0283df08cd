"""The store of live updates: streamed text for a limited time, and the topics that are watched at present.

Part of a backend's contract (`Queue.live`). No activity depends on it: after a loss of data, watchers miss updates
for a moment.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from ..parsing import parse_digits

START = "0-0"
"""The position before the first chunk of every stream."""


def is_stream_id(text: object) -> bool:
    """Return whether `text` has the format of `Chunk.stream_id`: two numbers of 63 bits."""
    # Redis has 64 bits, but does not accept the largest position as the start of a read.
    parts = text.split("-") if isinstance(text, str) else []
    return len(parts) == 2 and all(parse_digits(part) is not None for part in parts)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk of the text that a run streams."""

    agent_id: UUID
    text: str
    attempt: int = 0
    """The number of the attempt that wrote it; 0 outside of an attempt."""
    stream_id: str = ""
    """Its position, assigned by the store; positions of an activity increase."""
    fence: int = 0
    """The fence of the claim that wrote it; 0 outside of a worker. The text starts again under a new fence."""
    offset: int = -1
    """Characters that `writer` wrote before it under this fence; -1 if unknown. A jump means missing text."""
    writer: str = ""
    """The process that wrote it."""
    label: str = ""
    """The name of the agent that wrote it, where several agents write at the same time."""
    retracts: bool = False
    """Whether it replaces all text before it."""
    rewinds_to: int = -1
    """If not negative, it withdraws the text of this label under this fence after so many characters."""

    @property
    def end(self) -> int:
        """The offset of the next chunk. A rewind counts as a character, so that a lost one is noticed."""
        return self.offset + len(self.text) + (self.rewinds_to >= 0)


class LiveStore(ABC):
    """A bounded store with expiry. Verbs raise `QueueUnavailable`; all are safe to call from several threads."""

    @abstractmethod
    def append(self, chunks: Sequence[Chunk]) -> None:
        """Append chunks to the streams of their activities, in one round trip; a chunk that `retracts` replaces all.

        A stream keeps about the last `STREAM_MAX_ENTRIES` chunks, until `STREAM_TTL` seconds after the last.
        """

    @abstractmethod
    def read(self, after: Mapping[UUID, str], limit: int) -> list[Chunk]:
        """Return up to `limit` chunks of each of these activities, after these positions, in order."""

    @abstractmethod
    def at(self, positions: Mapping[UUID, str]) -> dict[UUID, Chunk]:
        """Return the chunks at exactly these positions, as far as they are still stored."""

    @abstractmethod
    def watch(self, topics: Sequence[str], seconds: float) -> None:
        """Mark `topics` as watched for the next `seconds`."""

    @abstractmethod
    def watched(self) -> frozenset[str]:
        """Return the topics that are watched at present."""
