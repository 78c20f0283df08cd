"""Streamed text on its way to one client: what it has, where something is missing, and what waits to be sent.

Pieces carry the fence and the number of characters before them, so a jump is noticed wherever text was lost: dropped by
its writer, trimmed by the store, or by a client that was slow or late. Under a new fence the text begins again.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from ..queues import Chunk
from ..queues.live import START
from .messages import Json

MAX_WAITING = 200_000  # characters that wait for a slow client; it reads the rest when it has taken these
MAX_MESSAGE = 50_000  # characters of one message: as escaped JSON at most 600 kB, below the limits of servers


class TextFeed:
    """The text of one activity for one client, from the position after which it wants it."""

    def __init__(self, agent_id: UUID, stream_after: str | None) -> None:
        self.agent_id = agent_id
        self.position = stream_after or START
        self.must_resume = self.position != START
        """Whether it is to be found out what the client has: `resume` is due."""
        self.has_gap = False
        """Whether the client lacks text, and has not got the stored one instead."""
        self._fence = 0
        self._attempt = 0
        self._offsets: dict[str, int] = {}
        self._knows_start = not self.must_resume
        self._waiting: list[Chunk | Json] = []
        self._size = 0
        self._stored = ""
        self._stored_sent = 0

    @property
    def has_room(self) -> bool:
        """Whether further text may wait."""
        return self._size < MAX_WAITING

    @property
    def is_waiting(self) -> bool:
        """Whether there is something to send."""
        return bool(self._waiting) or self._stored_sent < len(self._stored)

    def resume(self, last: Chunk | None) -> None:
        """Begin after `last`, the piece at the client's position; None if it is not kept any more."""
        self.must_resume = False
        if last is None:
            self.miss(None)
            return
        self._fence, self._attempt = last.fence, last.attempt
        if last.offset >= 0:
            self._offsets[last.writer] = last.offset + len(last.text)

    def accept(self, chunks: Sequence[Chunk]) -> bool:
        """Take the pieces after the position; False if some had to be left because too much waits."""
        for chunk in chunks:
            if stream_key(chunk.stream_id) <= stream_key(self.position):
                continue
            if not self.has_room:
                return False
            self.position = chunk.stream_id
            if not 0 < chunk.fence < self._fence:  # else of a worker that has lost the activity
                self._take(chunk)
        return True

    def miss(self, count: int | None) -> None:
        """Notify the client that `count` characters (None: an unknown number) are missing at this point."""
        self.has_gap = True
        self._waiting.append({**self._message("gap"), "missing": count})

    def replace(self, text: str) -> None:
        """Send the stored text instead of all that the client has."""
        self.has_gap = False
        self._drop_waiting()
        self._stored, self._stored_sent = text, 0

    def take(self) -> list[Json]:
        """Return messages, some at a time; `is_waiting` tells whether there are more."""
        messages = [each if isinstance(each, dict) else self._delta(each) for each in _joined(self._waiting)]
        self._drop_waiting()
        end = min(len(self._stored), self._stored_sent + MAX_WAITING)
        for start in range(self._stored_sent, end, MAX_MESSAGE):
            part = self._stored[start : start + MAX_MESSAGE]
            messages.append({**self._message("text"), "text": part, "offset": start, "total": len(self._stored)})
        self._stored_sent = end
        return messages

    def _take(self, chunk: Chunk) -> None:
        if chunk.fence > self._fence and (self._fence or self._knows_start):
            self._begin_again()
        self._fence, self._attempt = max(chunk.fence, self._fence), chunk.attempt
        if chunk.retracts:
            self._begin_again()
            self._waiting.append({**self._message("retract"), "stream_id": chunk.stream_id})
            self._offsets[chunk.writer] = chunk.offset
            return
        if chunk.offset >= 0:
            expected = self._offsets.get(chunk.writer, 0 if self._knows_start else chunk.offset)
            if chunk.offset > expected:
                self.miss(chunk.offset - expected)
            self._offsets[chunk.writer] = chunk.offset + len(chunk.text)
        if chunk.text:
            self._waiting.append(chunk)
            self._size += len(chunk.text)

    def _begin_again(self) -> None:
        """Forget the text before: the client will remove it."""
        self._drop_waiting()
        self._offsets = {}
        self._knows_start, self.has_gap = True, False
        self._stored, self._stored_sent = "", 0

    def _drop_waiting(self) -> None:
        self._waiting, self._size = [], 0

    def _message(self, kind: str) -> Json:
        return {"type": kind, "agent_id": str(self.agent_id), "attempt": self._attempt, "fence": self._fence}

    def _delta(self, chunk: Chunk) -> Json:
        message: Json = {
            "type": "delta",
            "agent_id": str(self.agent_id),
            "stream_id": chunk.stream_id,
            "text": chunk.text,
            "attempt": chunk.attempt,
            "fence": chunk.fence,
        }
        return {**message, "label": chunk.label} if chunk.label else message


def stream_key(stream_id: str) -> tuple[int, int]:
    """Return what orders positions of a stream."""
    milliseconds, _, number = stream_id.partition("-")
    return int(milliseconds), int(number)


def _joined(waiting: Sequence[Chunk | Json]) -> list[Chunk | Json]:
    """Join neighbours of one writer: a client that was slow, or comes late, gets few messages."""
    joined: list[Chunk | Json] = []
    for each in waiting:
        last = joined[-1] if joined else None
        if isinstance(each, Chunk) and isinstance(last, Chunk) and _may_join(last, each):
            joined[-1] = Chunk(
                each.agent_id, last.text + each.text, each.attempt, each.stream_id, each.fence, label=each.label
            )
        else:
            joined.append(each)
    return joined


def _may_join(first: Chunk, second: Chunk) -> bool:
    return (first.attempt, first.fence, first.label) == (second.attempt, second.fence, second.label) and len(
        first.text
    ) + len(second.text) <= MAX_MESSAGE
