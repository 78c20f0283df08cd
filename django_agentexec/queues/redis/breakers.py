"""Circuit breakers on Redis: a hash with one entry per model, changed by one script and dated by the server's clock."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import NoScriptError

from ..breakers import (
    FORGET_AFTER,
    MAX_NAME,
    MAX_REASON,
    SLOTS,
    BreakerOptions,
    BreakerReading,
    BreakerState,
    BreakerStore,
    Permit,
    slot_at,
    state_at,
)
from .connection import reachable

NO_OPTIONS = BreakerOptions(failures=0, window=1.0, open=0.0, rate=0.0)


class RedisBreakers(BreakerStore):
    """Breakers in the key `<prefix>:breakers`, of all processes that use this server and prefix."""

    def __init__(self, client: Callable[[], Redis], prefix: str) -> None:
        self._client = client
        self._key = f"{prefix}:breakers"

    def acquire(self, name: str, options: BreakerOptions, token: str, lease: float) -> Permit:
        permitted, probe, wait = self._run("acquire", name, options, token, _ms(lease))
        return Permit(bool(permitted), probe.decode(), wait / 1000)

    def record(self, name: str, options: BreakerOptions, *, ok: bool, probe: str = "", reason: str = "") -> bool:
        return bool(self._run("record", name, options, int(ok), probe, reason[:MAX_REASON]))

    def release(self, name: str, probe: str) -> None:
        self._run("release", name, NO_OPTIONS, probe)

    def read(self, options: BreakerOptions) -> list[BreakerReading]:
        with reachable():
            pipe = self._client().pipeline(transaction=False)
            pipe.time()
            pipe.hgetall(self._key)
            (seconds, microseconds), entries = pipe.execute()
        now = seconds + microseconds / 1e6
        found = (_reading(name.decode(), text, options, now) for name, text in sorted(entries.items()))
        return [reading for reading in found if reading is not None]

    def reset(self, name: str | None = None) -> None:
        with reachable():
            if name is None:
                self._client().delete(self._key)
            else:
                self._client().hdel(self._key, name[:MAX_NAME])

    def _run(self, verb: str, name: str, options: BreakerOptions, *arguments: Any) -> Any:
        sha, text = _script()
        values = options.failures, _ms(options.window), _ms(options.open), options.rate
        command = (1, self._key, verb, name[:MAX_NAME], *values, *arguments)
        with reachable():
            try:
                return self._client().evalsha(sha, *command)
            except NoScriptError:
                return self._client().eval(text, *command)


def _ms(seconds: float) -> int:
    return max(1, int(seconds * 1000))


def _reading(name: str, text: bytes, options: BreakerOptions, now: float) -> BreakerReading | None:
    """Return a breaker from its entry; None if it is outdated or of a release with another format."""
    try:
        entry = json.loads(text)
        state, at = BreakerState(entry["state"]), entry["at"] / 1000
        slots = entry["slots"] or []  # Lua writes an empty list as {}
        slot = slot_at(now, options.window)
        counts = [(calls, failures) for number, calls, failures in slots if slot - SLOTS < number <= slot]
        until, opened_at = entry.get("until", 0) / 1000, entry.get("opened_at", 0) / 1000
    except (ValueError, TypeError, KeyError):
        return None
    if at <= now - FORGET_AFTER:
        return None
    is_closed = state == BreakerState.CLOSED
    return BreakerReading(
        name=name,
        state=state_at(state, until, now),
        failures=sum(failures for _, failures in counts),
        calls=sum(calls for calls, _ in counts),
        retry_in=0.0 if is_closed else max(0.0, until - now),
        open_for=0.0 if is_closed else now - opened_at,
        reason=str(entry.get("reason", "")),
    )


@cache
def _script() -> tuple[str, str]:
    text = (Path(__file__).parent / "lua" / "breaker.lua").read_text()
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(), text
