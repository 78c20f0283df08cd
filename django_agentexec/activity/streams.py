"""Streamed text of activities: buffered briefly, then written to the live store of the queue.

    activity.stream(agent_id, "The lease ends")
    activity.stream(agent_id, " in March.")

Streamed text is for live clients; the result is stored in the row. Text that cannot be stored is dropped, and clients
are notified of the gap. One daemon thread per process writes all streams, at most 20 times a second.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from asgiref.sync import sync_to_async
from django.core.exceptions import ImproperlyConfigured

from ..background import BatchingThread
from ..current import current_attempt
from ..exceptions import AgentExecError
from ..logs import ThrottledLogger
from ..parsing import as_seconds
from ..queues import Chunk, get_queue
from ..signals import text_streamed, worker_stopped
from ..validation import storable_text, validate_id

logger = logging.getLogger(__name__)
throttled = ThrottledLogger(logger)

INTERVAL = 0.05  # seconds between two writes
RETRY_INTERVAL = 1.0  # seconds between two attempts to store a retraction
MAX_PIECE = 8_000  # characters of one entry of the store; longer text is split
MAX_WRITE = 1_000_000  # characters of one write to the store, so that it returns in time
MAX_WAITING = 10_000_000  # characters of one activity that wait to be written; text above this is dropped
MAX_STREAMS = 10_000  # streams whose length is remembered
FLUSH_TIMEOUT = 2.0  # seconds that a stopping worker waits for the last text

Stream = tuple[UUID, int]
"""The text of an activity under one fence."""


def stream(agent_id: UUID, text: str, *, label: str = "") -> None:
    """Append `text` to the streamed text that live clients of the activity see. Never blocks, never fails.

    For a model's answer as it arrives, in pieces of any size, in sync and async code. The text is kept for `STREAM_TTL`
    seconds, at most `STREAM_MAX_ENTRIES` pieces of about 50 ms each, and not in the row. `label` names the writer if
    several write at the same time.
    """
    agent_id = validate_id(agent_id)
    attempt = current_attempt(agent_id)
    if attempt is None or not attempt.canceled:
        number, fence = (attempt.number, attempt.fence) if attempt else (0, 0)
        stream_text(agent_id, text, number, fence, label)


def retract_stream(agent_id: UUID) -> None:
    """Retract all streamed text of the activity (inside a handler: of this attempt). Never blocks, never fails.

    Live clients are notified to remove the text, and later clients do not receive it.
    """
    agent_id = validate_id(agent_id)
    attempt = current_attempt(agent_id)
    if attempt is None or not attempt.canceled:
        retract_text(agent_id, *((attempt.number, attempt.fence) if attempt else (0, 0)))


def stream_text(agent_id: UUID, text: str, attempt: int, fence: int = 0, label: str = "") -> None:
    """Stream `text` as this attempt."""
    if text:
        _writer.add(agent_id, _Text(fence, attempt, label, [storable_text(text)]))


def retract_text(agent_id: UUID, attempt: int, fence: int = 0) -> None:
    """Retract the streamed text as this attempt."""
    _writer.retract(agent_id, _Text(fence, attempt, retracts=True))


def rewind_text(agent_id: UUID, position: int, attempt: int, fence: int = 0, label: str = "") -> None:
    """Withdraw the streamed text of `label` after its first `position` characters, as this attempt.

    For a call of a model that begins again: clients remove the text, and later clients do not receive it.
    """
    _writer.rewind(agent_id, _Text(fence, attempt, label, rewinds_to=position))


def text_position(agent_id: UUID, fence: int = 0, label: str = "") -> int:
    """Return how many characters this process has streamed with a label under a fence."""
    return _writer.position((agent_id, fence), label)


def flush_stream(timeout: float | timedelta = FLUSH_TIMEOUT) -> bool:
    """Wait until all text streamed so far is stored; return False if that takes longer than `timeout`.

    `timeout` is in seconds, or a timedelta.
    """
    return _writer.flush(as_seconds(timeout))


async def aflush_stream(timeout: float | timedelta = FLUSH_TIMEOUT) -> bool:  # noqa: ASYNC109  # as sync
    """Async version of `flush_stream`."""
    return await sync_to_async(flush_stream, thread_sensitive=False)(timeout)


def is_streaming(agent_id: UUID) -> bool:
    """Return whether text of the activity waits to be written."""
    return _writer.holds(agent_id)


@dataclass
class _Text:
    """Waiting text of one writer."""

    fence: int
    attempt: int
    label: str = ""
    parts: list[str] = field(default_factory=list)
    lost: int = 0
    """Characters after this text that were dropped."""
    retracts: bool = False
    rewinds_to: int = -1

    @property
    def source(self) -> tuple[int, int, str, bool, int]:
        """The origin of the text: only texts of the same origin are joined."""
        return self.fence, self.attempt, self.label, self.retracts, self.rewinds_to


class _StreamWriter(BatchingThread):
    thread_name = "agentexec-streams"

    def _reset(self) -> None:
        super()._reset()
        self._name = secrets.token_hex(4)  # of this process; offsets are counted per writer
        self._waiting: dict[UUID, list[_Text]] = {}
        self._sizes: dict[UUID, int] = {}
        self._offsets: OrderedDict[Stream, int] = OrderedDict()
        self._lengths: OrderedDict[Stream, Counter[str]] = OrderedDict()  # by label
        self._pending_gaps: dict[Stream, Chunk] = {}
        self._is_failing = False
        self._written = threading.Condition(self._lock)
        self._begun = self._done = 0

    def add(self, agent_id: UUID, text: _Text) -> None:
        with self._lock:
            texts = self._waiting.setdefault(agent_id, [])
            size = self._sizes.get(agent_id, 0)
            accepted = text.parts[0][: max(0, MAX_WAITING - size)]
            lost = len(text.parts[0]) - len(accepted)
            self._sizes[agent_id] = size + len(accepted)
            collected = _collected(texts, text)
            if collected is None or (collected.lost and accepted):
                collected = _Text(text.fence, text.attempt, text.label)
                texts.append(collected)
            collected.parts.append(accepted)
            collected.lost += lost
            self._lengths_of((agent_id, text.fence))[text.label] += len(accepted)
            self._wake()

    def rewind(self, agent_id: UUID, text: _Text) -> None:
        with self._lock:
            self._waiting.setdefault(agent_id, []).append(text)
            self._lengths_of((agent_id, text.fence))[text.label] = text.rewinds_to
            self._wake()

    def position(self, stream: Stream, label: str) -> int:
        with self._lock:
            return self._lengths_of(stream)[label]

    def _lengths_of(self, stream: Stream) -> Counter[str]:
        lengths = self._lengths[stream] = self._lengths.pop(stream, Counter())
        while len(self._lengths) > MAX_STREAMS:
            self._lengths.popitem(last=False)
        return lengths

    def retract(self, agent_id: UUID, text: _Text) -> None:
        with self._lock:
            self._waiting[agent_id] = [text]
            self._sizes[agent_id] = 0
            self._lengths.pop((agent_id, text.fence), None)
            self._wake()

    def holds(self, agent_id: UUID) -> bool:
        with self._lock:
            return agent_id in self._waiting or self._begun > self._done

    def flush(self, seconds: float) -> bool:
        """Write the text added so far without a pause; later text is not awaited."""
        self._flush_requested.set()
        try:
            with self._written:
                target = self._begun + bool(self._waiting)
                return self._written.wait_for(lambda: self._done >= target, seconds)
        finally:
            self._flush_requested.clear()

    def _interval(self) -> float:
        return RETRY_INTERVAL if self._is_failing else INTERVAL

    def _process_batch(self) -> None:
        with self._lock:
            waiting, self._waiting, self._sizes = self._waiting, {}, {}
            self._begun += 1
        try:
            self._write(waiting)
        finally:
            with self._written:
                self._done = self._begun
                self._written.notify_all()

    def _write(self, waiting: dict[UUID, list[_Text]]) -> None:
        pending = [(agent_id, text) for agent_id, texts in waiting.items() for text in texts]
        chunks = [chunk for agent_id, text in pending for chunk in self._pieces(agent_id, text)]
        batches = list(_batches([*self._pending_gaps.values(), *chunks]))
        while batches:
            try:
                get_queue().live.append(batches[0])
            except (AgentExecError, ImproperlyConfigured) as error:
                throttled.warn("Dropped streamed text.", error)
                self._is_failing = True
                self._mark_gaps([chunk for batch in batches for chunk in batch])
                return
            text_streamed.send_robust(None, agent_ids={chunk.agent_id for chunk in batches.pop(0)})
        self._is_failing = False
        self._pending_gaps = {}

    def _pieces(self, agent_id: UUID, text: _Text) -> Iterator[Chunk]:
        """Yield the text as entries of the store, each with its offset in the stream."""
        offset = self._offsets.pop((agent_id, text.fence), 0)

        def piece(content: str = "") -> Chunk:
            return Chunk(
                agent_id,
                content,
                text.attempt,
                fence=text.fence,
                offset=offset,
                writer=self._name,
                label=text.label,
                retracts=text.retracts,
                rewinds_to=text.rewinds_to,
            )

        whole = "".join(text.parts)
        if text.retracts or text.rewinds_to >= 0:
            yield piece()
            offset += text.rewinds_to >= 0
        for start in range(0, len(whole), MAX_PIECE):
            yield piece(whole[start : start + MAX_PIECE])
            offset += len(whole[start : start + MAX_PIECE])
        if text.lost:
            offset += text.lost
            yield piece()
        self._offsets[agent_id, text.fence] = offset
        while len(self._offsets) > MAX_STREAMS:
            self._offsets.popitem(last=False)

    def _mark_gaps(self, lost: list[Chunk]) -> None:
        """Store the gaps and retractions to report to followers as soon as the store is available."""
        unmarked: dict[Stream, Chunk] = {}
        for chunk in lost:
            stream = (chunk.agent_id, chunk.fence)
            earlier = unmarked.get(stream)
            retracts = chunk.retracts or (earlier is not None and earlier.retracts)
            unmarked[stream] = Chunk(
                chunk.agent_id,
                "",
                chunk.attempt,
                fence=chunk.fence,
                offset=chunk.end,
                writer=chunk.writer,
                retracts=retracts,
            )
        self._pending_gaps = dict(list(unmarked.items())[-MAX_STREAMS:])
        if any(chunk.retracts for chunk in self._pending_gaps.values()):
            with self._lock:
                self._wake()  # a retraction is repeated even if no more text follows


def _collected(texts: list[_Text], text: _Text) -> _Text | None:
    """Return the waiting text that `text` continues: writers that alternate are collected separately."""
    for each in reversed(texts):
        if each.source == text.source:
            return each
        if each.rewinds_to >= 0 and each.label == text.label:
            return None
    return None


def _batches(chunks: list[Chunk]) -> Iterator[list[Chunk]]:
    batch: list[Chunk] = []
    size = 0
    for chunk in chunks:
        if batch and size + len(chunk.text) > MAX_WRITE:
            yield batch
            batch, size = [], 0
        batch.append(chunk)
        size += len(chunk.text)
    if batch:
        yield batch


_writer = _StreamWriter()


def install() -> None:
    """Flush the text at the end of a worker; called when the app is ready."""
    worker_stopped.connect(_flush, dispatch_uid="agentexec.streams.stopped")


def _flush(**signal: object) -> None:
    _writer.flush(FLUSH_TIMEOUT)
