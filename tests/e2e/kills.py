"""Kills: at given places, and of random workers at random times."""

from __future__ import annotations

import os
import random
import re
import signal
import sqlite3
import time
from collections.abc import Callable, Sequence

from tests.e2e.journal import Journal
from tests.support.pool_process import PoolProcess
from tests.support.process_state import is_alive

KILLS = int(os.environ.get("AGENTEXEC_TEST_KILLS", "12"))
"""Random kills of one test; `AGENTEXEC_TEST_KILLS=100` for the whole of it."""
SEED = int(os.environ.get("CHAOS_SEED", str(time.time_ns() % 1_000_000)))
SETTINGS = {"MAX_CRASHES": 1_000, "RECONCILE_INTERVAL": 1.0, "LEASE": 5.0}
"""Innocent activities die here again and again, and what a crash cut off is to be healed within the test's time."""
PAUSE = (0.1, 0.6)  # seconds between two kills, at least and at most


def plan_deaths(journal: Journal, places: Sequence[str]) -> None:
    """Have a process die at each of the places, once."""
    with sqlite3.connect(journal.path) as connection:
        connection.execute("CREATE TABLE deaths (place TEXT)")
        connection.executemany("INSERT INTO deaths VALUES (?)", [(place,) for place in places])
    connection.close()


def survived(journal: Journal) -> list[str]:
    """Return the places where nobody has died."""
    connection = sqlite3.connect(journal.path, timeout=30)
    try:
        return [place for (place,) in connection.execute("SELECT place FROM deaths")]
    finally:
        connection.close()


def kill_at_random(pool: PoolProcess, feed: Callable[[], object]) -> None:
    """Kill random workers of the pool, `KILLS` times; `feed` is called before each, so that there is work to do."""
    print(f"CHAOS_SEED={SEED}")
    draw, done = random.Random(SEED), 0
    while done < KILLS:
        feed()
        time.sleep(draw.uniform(*PAUSE))
        # The pool may not have noted the latest deaths.
        alive = [pid for pid in map(int, re.findall(r"as process (\d+)", pool.output)) if is_alive(pid)]
        if alive:
            os.kill(draw.choice(alive), signal.SIGKILL)
            done += 1
