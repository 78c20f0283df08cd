"""The invocation of handlers: threads only for handlers that need one."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from asgiref.sync import sync_to_async

from django_agentexec.worker.invoker import WorkerInvoker


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the threads that start from now on."""
    names: list[str] = []
    start = threading.Thread.start

    def note(thread: threading.Thread) -> None:
        names.append(thread.name)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", note)
    return names


async def test_an_async_handler_without_sync_calls_starts_no_thread(started: list[str]) -> None:
    with ThreadPoolExecutor(1) as threads:
        async with WorkerInvoker(threads).around_async():
            pass

    assert started == []


async def test_the_sync_calls_of_a_handler_share_a_thread_that_ends(started: list[str]) -> None:
    used: list[threading.Thread] = []
    with ThreadPoolExecutor(1) as threads:
        async with WorkerInvoker(threads).around_async():
            for _ in range(2):
                await sync_to_async(lambda: used.append(threading.current_thread()))()

    assert len(started) == 1
    assert used[0] is used[1]
    used[0].join(10)
    assert not used[0].is_alive()
