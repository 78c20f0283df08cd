"""Live updates on Redis: one stream per activity that streams text, and a sorted set of watched topics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from redis import Redis

from ...conf import conf
from ..live import Chunk, LiveStore
from .connection import reachable

WATCHED_TTL = 600  # seconds after the last watch has ended until the set of watched topics is deleted


class RedisLiveStore(LiveStore):
    """Live updates in the keys `<prefix>:stream:<agent_id>` and `<prefix>:watched`, by the client of the queue."""

    def __init__(self, client: Callable[[], Redis], prefix: str) -> None:
        self._client = client
        self._prefix = prefix

    def append(self, chunks: Sequence[Chunk]) -> None:
        pipe = self._client().pipeline(transaction=False)
        for chunk in chunks:
            stream = self._stream(chunk.agent_id)
            if chunk.retracts:
                # Trimmed instead of deleted, so that later ids of the stream remain greater.
                pipe.xtrim(stream, maxlen=0, approximate=False)
            pipe.xadd(stream, _entry(chunk), maxlen=conf.STREAM_MAX_ENTRIES)
        for agent_id in {chunk.agent_id for chunk in chunks}:
            pipe.pexpire(self._stream(agent_id), int(conf.STREAM_TTL * 1000))
        with reachable():
            pipe.execute()

    def read(self, after: Mapping[UUID, str], limit: int) -> list[Chunk]:
        pipe = self._client().pipeline(transaction=False)
        for agent_id, position in after.items():
            pipe.xrange(self._stream(agent_id), min=f"({position}", count=limit)
        with reachable():
            replies: list[Any] = pipe.execute()
        return [
            _chunk(agent_id, stream_id, entry)
            for agent_id, entries in zip(after, replies, strict=True)
            for stream_id, entry in entries
        ]

    def at(self, positions: Mapping[UUID, str]) -> dict[UUID, Chunk]:
        pipe = self._client().pipeline(transaction=False)
        for agent_id, position in positions.items():
            pipe.xrange(self._stream(agent_id), min=position, max=position)
        with reachable():
            replies: list[Any] = pipe.execute()
        return {
            agent_id: _chunk(agent_id, *entries[0])
            for agent_id, entries in zip(positions, replies, strict=True)
            if entries
        }

    def watch(self, topics: Sequence[str], seconds: float) -> None:
        with reachable():
            until = self._now() + seconds
            pipe = self._client().pipeline(transaction=False)
            pipe.zadd(self._watched, dict.fromkeys(topics, until), gt=True)
            # `watched` deletes old members; without readers the whole set expires.
            pipe.expire(self._watched, int(seconds) + WATCHED_TTL)
            pipe.execute()

    def watched(self) -> frozenset[str]:
        with reachable():
            pipe = self._client().pipeline(transaction=False)
            pipe.time()
            pipe.zrange(self._watched, 0, -1, withscores=True)
            (seconds, microseconds), members = pipe.execute()
            now = seconds + microseconds / 1e6
            if any(until <= now for _, until in members):
                self._client().zremrangebyscore(self._watched, "-inf", now)
        return frozenset(topic.decode() for topic, until in members if until > now)

    def clear(self) -> None:
        """Delete the watched topics; streams expire."""
        with reachable():
            self._client().delete(self._watched)

    def _now(self) -> float:
        """Return the server's time, which is the same for all clients."""
        reply: Any = self._client().time()
        return float(reply[0] + reply[1] / 1e6)

    @property
    def _watched(self) -> str:
        return f"{self._prefix}:watched"

    def _stream(self, agent_id: UUID) -> str:
        return f"{self._prefix}:stream:{agent_id}"


def _entry(chunk: Chunk) -> dict[Any, Any]:
    """Return a chunk as an entry of a stream. Releases before the fence read only `text` and `attempt`."""
    entry: dict[Any, Any] = {
        "text": chunk.text,
        "attempt": chunk.attempt,
        "fence": chunk.fence,
        "offset": chunk.offset,
        "writer": chunk.writer,
    }
    if chunk.label:
        entry["label"] = chunk.label
    if chunk.retracts:
        entry["retracts"] = 1
    if chunk.rewinds_to >= 0:
        entry["rewinds_to"] = chunk.rewinds_to
    return entry


def _chunk(agent_id: UUID, stream_id: bytes, entry: Mapping[bytes, bytes]) -> Chunk:
    """Return the chunk of an entry, including entries of releases before the fence."""
    return Chunk(
        agent_id,
        entry.get(b"text", b"").decode(),
        int(entry.get(b"attempt", 0)),
        stream_id.decode(),
        fence=int(entry.get(b"fence", 0)),
        offset=int(entry.get(b"offset", -1)),
        writer=entry.get(b"writer", b"").decode(),
        label=entry.get(b"label", b"").decode(),
        retracts=b"retracts" in entry,
        rewinds_to=int(entry.get(b"rewinds_to", -1)),
    )
