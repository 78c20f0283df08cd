"""The work of the measured tasks, the same for each peer, whose modules wrap it in tasks of their own."""

from __future__ import annotations

import asyncio
import os
import time

from benchmarks.peers.tally import Kind, note

if "BENCHMARK_SDK" in os.environ:
    import agents  # noqa: F401  # makes the processes large, as ours are when their memory is measured


def nothing(number: int) -> None:
    """Note that the task ran."""
    note(Kind.END, number)


def wait(number: int, seconds: float) -> None:
    """Wait, as for an answer from the network, in a thread or greenlet."""
    note(Kind.START, number)
    time.sleep(seconds)
    note(Kind.END, number)


async def async_wait(number: int, seconds: float) -> None:
    """Wait, as for an answer from the network, in an event loop."""
    note(Kind.START, number)
    await asyncio.sleep(seconds)
    note(Kind.END, number)
