"""The Redis backend's store of live updates: a stream per activity that streams, a sorted set of watchers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from redis import Redis

from ..conf import conf
from .connection import reachable
from .live import Chunk, LiveStore

FORGOTTEN_AFTER = 600  # seconds after which a set of watchers that nobody adds to is deleted


class RedisLiveStore(LiveStore):
    """Uses the queue's client, and its prefix for the keys `<prefix>:stream:<agent_id>` and `<prefix>:watched`."""

    def __init__(self, client: Callable[[], Redis], prefix: str) -> None:
        self._client = client
        self._prefix = prefix

    def append(self, chunks: Sequence[Chunk]) -> None:
        pipe = self._client().pipeline(transaction=False)
        for chunk in chunks:
            pipe.xadd(
                self._stream(chunk.agent_id),
                {"text": chunk.text, "attempt": chunk.attempt},
                maxlen=conf.STREAM_MAX_ENTRIES,
            )
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
            Chunk(agent_id, entry[b"text"].decode(), int(entry[b"attempt"]), stream_id.decode())
            for agent_id, entries in zip(after, replies, strict=True)
            for stream_id, entry in entries
        ]

    def watch(self, topics: Sequence[str], seconds: float) -> None:
        with reachable():
            until = self._now() + seconds
            pipe = self._client().pipeline(transaction=False)
            pipe.zadd(self._watched, dict.fromkeys(topics, until), gt=True)
            # So that a set that nobody reads any more does not stay for ever.
            pipe.expire(self._watched, int(seconds) + FORGOTTEN_AFTER)
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
        """Forget the watchers; streams end by themselves."""
        with reachable():
            self._client().delete(self._watched)

    def _now(self) -> float:
        """Return the server's time, by which all clients agree."""
        reply: Any = self._client().time()
        return float(reply[0] + reply[1] / 1e6)

    @property
    def _watched(self) -> str:
        return f"{self._prefix}:watched"

    def _stream(self, agent_id: UUID) -> str:
        return f"{self._prefix}:stream:{agent_id}"
