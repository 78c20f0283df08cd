"""Streamed text: what each client lacks of it, and one read of the store for many clients.

`TextFeed` is the text of one activity for one client. The hub calls `distribute_text` for activities with new text, and
`finish_text` before a final status.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from ..queues import Chunk, get_queue
from ..queues.live import START
from ..threads import in_thread
from . import messages
from .messages import MAX_DELTA, Gap, Message, Retraction, Rewind
from .reading import read_isolated, read_stored_texts

if TYPE_CHECKING:
    from .subscriptions import ActivitySubscription

MAX_WAITING = 200_000  # characters that wait for a slow client; the rest stays in the store
MAX_CHUNKS = 500  # pieces of one activity in one read


class TextFeed:
    """The streamed text of one activity for one client, after the client's position.

    Pieces carry the fence and the number of characters before them. A jump is therefore noticed wherever text was lost:
    dropped by its writer, trimmed by the store, or missed by a slow or late client. Under a new fence the text begins
    again.
    """

    def __init__(self, agent_id: UUID, stream_after: str | None) -> None:
        self.agent_id = agent_id
        self.position = stream_after or START
        self.must_resume = self.position != START
        """Whether `resume` must be called first, with the piece at the client's position."""
        self.has_gap = False
        """Whether the client lacks text and has not received the stored text instead."""
        self.has_room = True
        """Whether further text may wait."""
        self._fence = 0
        self._attempt = 0
        self._offsets: dict[str, int] = {}
        self._knows_start = not self.must_resume
        self._waiting: list[Chunk | Gap | Retraction | Rewind] = []
        self._size = 0
        self._stored = ""
        self._stored_sent = 0
        self._has_shown = self.must_resume
        """Whether the client may show text."""

    @property
    def is_waiting(self) -> bool:
        """Whether there is text to send."""
        return bool(self._waiting) or self._stored_sent < len(self._stored)

    def resume(self, last: Chunk | None) -> None:
        """Begin after `last`, the piece at the client's position; None if the store has dropped it."""
        self.must_resume = False
        if last is None:
            self.add_gap(None)
            return
        self._fence, self._attempt = last.fence, last.attempt
        if last.offset >= 0:
            self._offsets[last.writer] = last.end

    def accept(self, chunks: Sequence[Chunk]) -> bool:
        """Take the pieces after the position; False if some were left because too much text waits."""
        for chunk in chunks:
            if stream_key(chunk.stream_id) <= stream_key(self.position):
                continue
            if not self.has_room:
                return False
            self.position = chunk.stream_id
            if not 0 < chunk.fence < self._fence:  # else written by a worker that has lost the activity
                self._accept_chunk(chunk)
        return True

    def add_gap(self, missing: int | None) -> None:
        """Notify the client that `missing` characters (None: an unknown number) are missing at this point."""
        self.has_gap = True
        self._waiting.append(messages.gap(self.agent_id, self._attempt, self._fence, missing))

    def replace(self, text: str) -> None:
        """Send the stored text in place of all that the client has."""
        self.has_gap = False
        self._drop_waiting()
        self._stored, self._stored_sent = text, 0

    def take(self) -> list[Message]:
        """Return a limited number of messages; `is_waiting` is true if there are more."""
        taken: list[Message] = [
            messages.delta(each) if isinstance(each, Chunk) else each for each in _joined(self._waiting)
        ]
        self._has_shown = self._has_shown or bool(taken)
        self._drop_waiting()
        end = min(len(self._stored), self._stored_sent + MAX_WAITING)
        for offset in range(self._stored_sent, end, MAX_DELTA):
            taken.append(messages.stored_text(self.agent_id, self._attempt, self._fence, self._stored, offset))
        self._stored_sent = end
        return taken

    def _accept_chunk(self, chunk: Chunk) -> None:
        if chunk.fence > self._fence and (self._fence or self._knows_start):
            self._restart()
            if self._has_shown and chunk.rewinds_to < 0 and not chunk.retracts:  # these withdraw the text themselves
                self._waiting.append(messages.restart(chunk))
            self._has_shown = False
        self._fence, self._attempt = max(chunk.fence, self._fence), chunk.attempt
        if chunk.retracts:
            self._restart()
            self._waiting.append(messages.retraction(chunk, self._fence))
            self._offsets[chunk.writer] = chunk.offset
            return
        if chunk.offset >= 0:
            expected = self._offsets.get(chunk.writer, 0 if self._knows_start else chunk.offset)
            if chunk.offset > expected:
                self.add_gap(chunk.offset - expected)
            self._offsets[chunk.writer] = chunk.end
        if chunk.rewinds_to >= 0:
            self._waiting.append(messages.rewind(chunk, self._fence))
        if chunk.text:
            self._waiting.append(chunk)
            self._size += len(chunk.text)
            self.has_room = self._size < MAX_WAITING

    def _restart(self) -> None:
        """Drop the text before, which the client will remove."""
        self._drop_waiting()
        self._offsets = {}
        self._knows_start, self.has_gap = True, False
        self._stored, self._stored_sent = "", 0

    def _drop_waiting(self) -> None:
        self._waiting, self._size, self.has_room = [], 0, True


def stream_key(stream_id: str) -> tuple[int, int]:
    """Return the sort key of a position in a stream."""
    milliseconds, _, number = stream_id.partition("-")
    return int(milliseconds), int(number)


def _joined(waiting: Sequence[Chunk | Gap | Retraction | Rewind]) -> list[Chunk | Gap | Retraction | Rewind]:
    """Join consecutive pieces of the same origin, so that a slow or late client receives few messages."""
    joined: list[Chunk | Gap | Retraction | Rewind] = []
    for each in waiting:
        last = joined[-1] if joined else None
        if isinstance(each, Chunk) and isinstance(last, Chunk) and _are_joinable(last, each):
            text = last.text + each.text
            joined[-1] = Chunk(each.agent_id, text, each.attempt, each.stream_id, each.fence, label=each.label)
        else:
            joined.append(each)
    return joined


def _are_joinable(first: Chunk, second: Chunk) -> bool:
    is_same = (first.attempt, first.fence, first.label) == (second.attempt, second.fence, second.label)
    return is_same and len(first.text) + len(second.text) <= MAX_DELTA


async def distribute_text(
    subscriptions: Iterable[ActivitySubscription],
) -> tuple[set[ActivitySubscription], set[ActivitySubscription]]:
    """Read the streamed text that these subscriptions lack, and offer it to them.

    Return the subscriptions with more text, and those whose text cannot be read at present: the next poll of the hub
    reads it again.
    """
    ready = [each for each in subscriptions if each.is_ready and each.has_room()]
    failed = await _resume([each for each in ready if each.text.must_resume])
    readers: dict[UUID, list[ActivitySubscription]] = {}
    for each in ready:
        if each not in failed:
            readers.setdefault(each.agent_id, []).append(each)
    if not readers:
        return set(), failed
    after = {agent_id: min((s.text.position for s in group), key=stream_key) for agent_id, group in readers.items()}
    found: dict[UUID, list[Chunk]] = {}
    results, failed_ids = await in_thread(read_isolated, _read_text, after)
    failed.update(each for agent_id in failed_ids for each in readers[agent_id])
    for chunk in (chunk for chunks in results for chunk in chunks):
        found.setdefault(chunk.agent_id, []).append(chunk)
    unfinished: set[ActivitySubscription] = set()
    for agent_id, chunks in found.items():
        for each in readers[agent_id]:
            if not each.accept_text(chunks) or len(chunks) == MAX_CHUNKS:
                unfinished.add(each)
    return unfinished, failed


async def _resume(subscriptions: Sequence[ActivitySubscription]) -> set[ActivitySubscription]:
    """Read the last piece that each client has received, and resume after it. Return the failed subscriptions."""
    failed: set[ActivitySubscription] = set()
    by_position: dict[str, list[ActivitySubscription]] = {}
    for each in subscriptions:
        by_position.setdefault(each.text.position, []).append(each)
    for position, group in by_position.items():
        positions = {each.agent_id: position for each in group}
        results, failed_ids = await in_thread(read_isolated, get_queue().live.at, positions)
        found = {agent_id: chunk for chunks in results for agent_id, chunk in chunks.items()}
        failed.update(each for each in group if each.agent_id in failed_ids)
        for each in group:
            if each.text.must_resume and each not in failed:  # else a concurrent read has resumed it
                each.text.resume(found.get(each.agent_id))
                each.send_text()
    return failed


def _read_text(after: Mapping[UUID, str]) -> list[Chunk]:
    return get_queue().live.read(after, MAX_CHUNKS)


async def finish_text(finished: Sequence[ActivitySubscription]) -> set[ActivitySubscription]:
    """Distribute the rest of the text, and the stored text after a gap. Return the subscriptions with more text."""
    unfinished, failed = await distribute_text(finished)
    for each in failed:  # the final status must not depend on the store of the text
        each.add_text_gap()
    remaining = {each for each in finished if each in unfinished or not each.has_room()}
    with_gap = [each for each in finished if each.text.has_gap and each not in remaining]
    if with_gap:
        stored = await in_thread(read_stored_texts, {each.agent_id for each in with_gap})
        for each in with_gap:
            if each.agent_id in stored:
                each.text.replace(stored[each.agent_id])
            each.send_text()
    return remaining
