"""Chaos: producers keep enqueuing while everything around them dies; at the end nothing is missing.

The seed is printed; `CHAOS_SEED` replays the draws (not the timing of the machine), `CHAOS_SECONDS` makes it
longer than its 20 seconds. `make test` runs the short form, `make chaos` this test alone.
"""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict
from itertools import pairwise
from uuid import UUID

import pytest

from django_agentexec.models import Activity, ActivityLog, Status
from django_agentexec.queues import get_queue
from tests.chaos.faults import Faults
from tests.e2e.journal import Event, Journal
from tests.pools import until
from tests.servers import Valkey
from tests.testapp.agents import Work, locked_work, work

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]

SECONDS = float(os.environ.get("CHAOS_SECONDS", "20"))
SEED = int(os.environ.get("CHAOS_SEED", str(time.time_ns() % 1_000_000)))
KEYS = 20
TICK = 0.2  # seconds; each enqueues a few activities, and every other one brings a fault


@pytest.fixture
def journal(tmp_path_factory: pytest.TempPathFactory) -> Journal:
    return Journal(tmp_path_factory.mktemp("chaos"))


def test_nothing_is_lost_and_no_lock_is_broken(journal: Journal, valkey: Valkey) -> None:
    print(f"CHAOS_SEED={SEED}")
    faults = Faults(SEED, valkey)
    try:
        made = produce_under_fire(faults, journal)
        until(lambda: not Activity.objects.active().exists(), "the end of every activity", timeout=120)
    finally:
        faults.end()

    print(f"{made} activities, {dict(faults.happened)}")
    assert Counter(Activity.objects.values_list("status", flat=True)) == {Status.COMPLETE: made}
    assert len(completions()) == len(set(completions())) == made
    # A frozen process may wake up in the middle of a handler whose activity is another's by now: its writes are
    # refused, but the handler still notes its end.
    assert overlaps([found for found in journal.events() if found.pid not in faults.frozen]) == []
    assert keys_out_of_order(journal.events("start")) == []
    stats = get_queue().stats("default")
    assert (stats.pending, stats.leased, stats.delayed, stats.ready, stats.suspects) == (0, 0, 0, 0, 0)


def produce_under_fire(faults: Faults, journal: Journal) -> int:
    """Enqueue and let faults happen, in turn; return how many activities were enqueued."""
    made, deadline = 0, time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        for _ in range(faults.random.randrange(12)):
            seconds = faults.random.uniform(0, 0.2)
            if faults.random.random() < 0.5:
                work.enqueue(Work(journal=journal.path, name=f"plain-{made}", seconds=seconds))
            else:
                key = f"k{faults.random.randrange(KEYS)}"
                locked_work.enqueue(Work(journal=journal.path, name=f"{key}-{made:06}", key=key, seconds=seconds))
            made += 1
        if faults.random.random() < 0.5:
            faults.strike()
        time.sleep(TICK)
    return made


def completions() -> list[UUID]:
    """Return the activity of each log line that tells of a completion."""
    return list(ActivityLog.objects.filter(status=Status.COMPLETE).values_list("activity_id", flat=True))


def overlaps(events: list[Event]) -> list[tuple[str, str]]:
    """Return pairs of one lock key whose handlers ran at the same time, as far as both came to their end."""
    starts: dict[tuple[str, int], float] = {}
    spans: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
    for found in events:
        if found.event == "start":
            starts[found.name, found.pid] = found.at
        elif (found.name, found.pid) in starts:
            spans[found.name.split("-")[0]].append((starts[found.name, found.pid], found.at, found.name))
    spans.pop("plain", None)
    in_order = [sorted(of_key) for of_key in spans.values()]
    return [(a[2], b[2]) for of_key in in_order for a, b in pairwise(of_key) if b[0] < a[1]]


def keys_out_of_order(starts: list[Event]) -> list[str]:
    """Return the lock keys whose activities did not start (for the first time) in the order of their enqueue."""
    first: dict[str, list[str]] = defaultdict(list)
    for found in starts:
        key = found.name.split("-")[0]
        if found.name not in first[key]:
            first[key].append(found.name)
    first.pop("plain", None)
    return [key for key, names in first.items() if names != sorted(names)]
