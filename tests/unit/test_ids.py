"""Time-ordered identifiers."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from uuid import RFC_4122

import pytest

from django_agentexec import ids
from django_agentexec.ids import uuid7


def test_an_id_is_a_uuid_of_version_7() -> None:
    one = uuid7()

    assert (one.version, one.variant) == (7, RFC_4122)


def test_an_id_tells_when_it_was_made() -> None:
    before = time.time_ns() // 1_000_000

    made = uuid7().int >> 80

    # Never earlier; later only where a millisecond had no room left for its ids.
    assert before <= made <= time.time_ns() // 1_000_000 + 100


def test_ids_grow() -> None:
    made = [uuid7() for _ in range(20_000)]  # more than one millisecond has room for

    assert made == sorted(set(made))


def test_ids_grow_when_the_clock_is_turned_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = uuid7()
    monkeypatch.setattr(ids.time, "time_ns", lambda: 0)

    assert uuid7() > before


def test_threads_never_make_the_same() -> None:
    with ThreadPoolExecutor(8) as threads:
        made = [one for batch in threads.map(lambda _: [uuid7() for _ in range(1000)], range(8)) for one in batch]

    assert len(set(made)) == 8000
