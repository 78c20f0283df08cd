"""The limits on Redis or Valkey: one script per step, by the clock of the server.

All keys have one hash tag, since a call may count in several buckets. Failover and restarts need no care beyond that of
the queue: a grant that is lost with the data of the server is no longer counted.
"""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import NoScriptError

from ..conf import conf
from ..queues.redis.connection import reachable
from .base import POLL_GRACE, SUSPENDED_GRACE, LimitStore, Request, Reservation, Usage, Wait
from .rules import Bucket

KEYS = ("requests", "tokens", "amounts", "state", "open", "queue", "tickets", "alive", "turns")
UNSENT = "unsent"


class RedisLimits(LimitStore):
    """Limits on the server of the queue. `client` returns its client."""

    def __init__(self, client: Callable[[], Redis], prefix: str) -> None:
        self._client = client
        self._prefix = f"{{{prefix}:limits}}"

    def reserve(self, request: Request, patience: float | None = None) -> Reservation | Wait:
        reservation = Reservation(request)
        arguments = [
            reservation.id,
            request.ticket,
            request.tenant,
            request.tokens,
            _us(conf.LEASE),
            -1 if patience is None else _us(max(0.0, patience)),
            len(request.buckets),
            _us(POLL_GRACE),
            _us(SUSPENDED_GRACE),
            request.endpoint,
        ]
        wait = int(self._run("reserve", request.buckets, [*arguments, *_limits(request.buckets)]))
        return Wait(wait / 1e6) if wait else reservation

    def settle(self, reservation: Reservation, tokens: int | None) -> None:
        self._end(reservation, "" if tokens is None else tokens)

    def cancel(self, reservation: Reservation) -> None:
        self._end(reservation, UNSENT)

    def _end(self, reservation: Reservation, used: int | str) -> None:
        request, duration = reservation.request, _us(max(0.0, time.monotonic() - reservation.granted_at))
        arguments = [reservation.id, request.tokens, used, duration]
        self._run("settle", request.buckets, [*arguments, *_limits(request.buckets)])

    def close_buckets(self, buckets: Sequence[Bucket], seconds: float, endpoint: str = "") -> None:
        self._run("close", buckets, [_us(seconds), endpoint, *_limits(buckets)])

    def extend(self, reservations: Sequence[Reservation]) -> None:
        ids: dict[Bucket, list[str]] = defaultdict(list)
        for reservation in reservations:
            for bucket in reservation.request.buckets:
                if bucket.limit.concurrency:
                    ids[bucket].append(reservation.id)
        for bucket, held in ids.items():
            self._run("extend", [bucket], [_us(conf.LEASE), *held])

    def withdraw(self, request: Request) -> None:
        self._run("withdraw", request.buckets, [request.ticket])

    def usage(self, bucket: Bucket) -> Usage:
        requests, tokens, in_progress, waiting, closed = self._run("usage", [bucket], _limits([bucket]))
        return Usage(requests, tokens, in_progress, waiting, int(closed) / 1e6)

    def _run(self, verb: str, buckets: Sequence[Bucket], arguments: Sequence[Any]) -> Any:
        keys = [f"{self._prefix}:{bucket.name}:{key}" for bucket in buckets for key in KEYS]
        sha, text = script(verb)
        with reachable():
            try:
                return self._client().evalsha(sha, len(keys), *keys, *arguments)
            except NoScriptError:
                return self._client().eval(text, len(keys), *keys, *arguments)


def _us(seconds: float) -> int:
    return round(seconds * 1e6)


def _limits(buckets: Sequence[Bucket]) -> list[int]:
    """Return the numbers of the limits as arguments of a script."""
    return [
        number
        for limit in (bucket.limit for bucket in buckets)
        for number in (limit.rpm, limit.tpm, limit.concurrency, _us(limit.span))
    ]


@cache
def script(verb: str) -> tuple[str, str]:
    """Return the digest and the text of a verb's script: the prelude, then the verb's file."""
    folder = Path(__file__).parent / "lua"
    text = (folder / "prelude.lua").read_text() + (folder / f"{verb}.lua").read_text()
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(), text
