"""Streamed text on its way to the followers: collected for a moment, then put into the queue's live store.

    activity.stream(agent_id, "The lease ends")
    activity.stream(agent_id, " in March.")

Text is for the eyes of who follows live: it is dropped rather than kept waiting, and the result is the row's.
One daemon thread per process writes all streams, 20 times a second at most.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from uuid import UUID

from asgiref.sync import sync_to_async
from django.core.exceptions import ImproperlyConfigured
from django.dispatch import receiver

from ..complaints import Complaints
from ..exceptions import AgentExecError
from ..queues import Chunk, get_queue
from ..rounds import Rounds
from ..signals import text_streamed, worker_stopped
from ..values import checked_id, storable_text
from .current import current_attempt

logger = logging.getLogger(__name__)
complaints = Complaints(logger)

INTERVAL = 0.05  # seconds between two writes
MOST_TEXT = 100_000  # characters of one activity that wait to be written; further ones are dropped
LAST_WORDS = 2.0  # seconds that the end of a worker waits for the last text


def stream(agent_id: UUID, text: str) -> None:
    """Show `text` to whoever follows the activity live, after what was shown before. Never waits, never fails.

    For a model's answer as it comes, in pieces of any size, in sync and async code alike. It is kept
    for `STREAM_TTL` seconds, at most `STREAM_MAX_ENTRIES` pieces of about 50 ms each, and not in the row.
    """
    agent_id = checked_id(agent_id)
    attempt = current_attempt(agent_id)
    if attempt is None or not attempt.canceled:
        stream_text(agent_id, text, attempt.number if attempt else 0)


def stream_text(agent_id: UUID, text: str, attempt: int) -> None:
    """Do what `stream` does, as this attempt."""
    if text:
        _writer.add(Chunk(agent_id, storable_text(text), attempt))


def flush_stream(timeout: float = LAST_WORDS) -> bool:
    """Wait until all streamed text can be read; False if that takes longer than `timeout` seconds."""
    return _writer.flush(timeout)


class _StreamWriter(Rounds):
    thread_name = "agentexec-streams"

    def _begin(self) -> None:
        super()._begin()
        self._waiting: dict[UUID, list[Chunk]] = {}
        self._sizes: dict[UUID, int] = {}

    def add(self, chunk: Chunk) -> None:
        with self._lock:
            size = self._sizes.get(chunk.agent_id, 0) + len(chunk.text)
            if size > MOST_TEXT:
                return
            self._sizes[chunk.agent_id] = size
            chunks = self._waiting.setdefault(chunk.agent_id, [])
            if chunks and chunks[-1].attempt == chunk.attempt:
                chunks[-1] = replace(chunk, text=chunks[-1].text + chunk.text)
            else:
                chunks.append(chunk)
            self._wake()

    def _pause(self) -> float:
        return INTERVAL

    def _round(self) -> None:
        with self._lock:
            waiting, self._waiting, self._sizes = self._waiting, {}, {}
        try:
            get_queue().live.append([chunk for chunks in waiting.values() for chunk in chunks])
        except (AgentExecError, ImproperlyConfigured) as error:
            complaints.warn("Streamed text is dropped.", error)
            return
        text_streamed.send_robust(None, agent_ids=set(waiting))


_writer = _StreamWriter()


@receiver(worker_stopped, dispatch_uid="agentexec.streams.stopped")
def _say_last_words(**signal: object) -> None:
    _writer.flush(LAST_WORDS)


aflush_stream = sync_to_async(flush_stream, thread_sensitive=False)
