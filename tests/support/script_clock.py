"""A clock for Lua scripts that tests move: a key that the scripts read in place of the time of the server."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any
from unittest import mock

KEY = "clock of the test"
SERVER_CLOCK = "redis.call('TIME')"


def set_clock(client: Any, now: float) -> None:
    """Set the clock to `now`, in Unix seconds."""
    whole, fraction = divmod(round(now * 1_000_000), 1_000_000)
    client.hset(KEY, mapping={"seconds": whole, "microseconds": fraction})


@contextmanager
def scripts_with_test_clock(module: ModuleType) -> Iterator[None]:
    """Have the scripts that `module.script` returns read this clock."""
    script = module.script

    @cache
    def with_test_clock(verb: str) -> tuple[str, str]:
        _, text = script(verb)
        assert text.count(SERVER_CLOCK) == 1
        text = text.replace(SERVER_CLOCK, f"redis.call('HMGET', '{KEY}', 'seconds', 'microseconds')")
        return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(), text

    with mock.patch.object(module, "script", with_test_clock):
        yield
