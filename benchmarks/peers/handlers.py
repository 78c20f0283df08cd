"""The work of the measured tasks, the same for each peer; the module of a peer wraps it in tasks."""

from __future__ import annotations

import asyncio
import os
import time

from benchmarks.peers.tally import Kind, note

if "BENCHMARK_SDK" in os.environ:
    import agents  # noqa: F401  # makes the processes as large as those of this project


def nothing(number: int) -> None:
    """Record that the task ran."""
    note(Kind.END, number)


def wait(number: int, seconds: float) -> None:
    """Wait, as for a reply from the network, in a thread or greenlet."""
    note(Kind.START, number)
    time.sleep(seconds)
    note(Kind.END, number)


async def async_wait(number: int, seconds: float) -> None:
    """Wait, as for a reply from the network, in an event loop."""
    note(Kind.START, number)
    await asyncio.sleep(seconds)
    note(Kind.END, number)
