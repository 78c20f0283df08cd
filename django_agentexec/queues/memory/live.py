"""The in-memory store of live updates: streams and watched topics of one process."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from ...conf import conf
from ..live import Chunk, LiveStore


@dataclass(slots=True)
class _Stream:
    chunks: list[Chunk] = field(default_factory=list)
    number: int = 0
    expires: float = 0.0


class MemoryLiveStore(LiveStore):
    """Live updates in the memory of this process. `clock` returns Unix seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._streams: dict[UUID, _Stream] = defaultdict(_Stream)
        self._watched: dict[str, float] = {}

    def append(self, chunks: Sequence[Chunk]) -> None:
        with self._lock:
            now = self._clock()
            self._delete_expired(now)
            for chunk in chunks:
                stream = self._streams[chunk.agent_id]
                stream.number += 1
                stream.expires = now + conf.STREAM_TTL
                if chunk.retracts:
                    stream.chunks.clear()
                stream.chunks.append(replace(chunk, stream_id=f"{int(now * 1000)}-{stream.number}"))
                del stream.chunks[: -conf.STREAM_MAX_ENTRIES]

    def read(self, after: Mapping[UUID, str], limit: int) -> list[Chunk]:
        with self._lock:
            self._delete_expired(self._clock())
            return [
                chunk
                for agent_id, position in after.items()
                if agent_id in self._streams
                for chunk in [c for c in self._streams[agent_id].chunks if _key(c.stream_id) > _key(position)][:limit]
            ]

    def at(self, positions: Mapping[UUID, str]) -> dict[UUID, Chunk]:
        with self._lock:
            self._delete_expired(self._clock())
            return {
                agent_id: chunk
                for agent_id, position in positions.items()
                if agent_id in self._streams
                for chunk in self._streams[agent_id].chunks
                if chunk.stream_id == position
            }

    def _delete_expired(self, now: float) -> None:
        for agent_id in [agent_id for agent_id, stream in self._streams.items() if stream.expires <= now]:
            del self._streams[agent_id]

    def watch(self, topics: Sequence[str], seconds: float) -> None:
        with self._lock:
            until = self._clock() + seconds
            for topic in topics:
                self._watched[topic] = max(until, self._watched.get(topic, 0.0))

    def watched(self) -> frozenset[str]:
        with self._lock:
            now = self._clock()
            self._watched = {topic: until for topic, until in self._watched.items() if until > now}
            return frozenset(self._watched)

    def clear(self) -> None:
        """Delete everything."""
        with self._lock:
            self._streams.clear()
            self._watched.clear()


def _key(stream_id: str) -> tuple[int, int]:
    milliseconds, _, number = stream_id.partition("-")
    return int(milliseconds), int(number)
