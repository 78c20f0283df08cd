"""How a worker calls handlers: each with its own connections, which are closed when it ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextvars import ContextVar

import pytest
from asgiref.sync import sync_to_async
from django.db import connection

from django_agentexec.models import Activity
from django_agentexec.worker.invoker import WorkerInvoker
from django_agentexec.worker.threads import ConnectionClosingExecutor

pytestmark = pytest.mark.django_db(transaction=True)

word: ContextVar[str] = ContextVar("word", default="")


@pytest.fixture
def threads() -> Iterator[ConnectionClosingExecutor]:
    threads = ConnectionClosingExecutor(2)
    yield threads
    threads.shutdown()


@pytest.fixture
def calls(threads: ConnectionClosingExecutor) -> WorkerInvoker:
    return WorkerInvoker(threads)


def ask() -> tuple[int, object]:
    """Use the database, and return the thread and its open connection."""
    Activity.objects.count()
    return threading.get_ident(), connection.connection


async def test_async_handlers_do_not_share_a_thread(calls: WorkerInvoker) -> None:
    both_in = asyncio.Barrier(2)

    async def handler() -> int:
        async with calls.around_async():
            thread, _ = await sync_to_async(ask)()
            await both_in.wait()
            return thread

    first, second = await asyncio.gather(handler(), handler())

    assert first != second


async def test_the_connection_of_an_async_handler_is_closed(calls: WorkerInvoker) -> None:
    async with calls.around_async():
        await sync_to_async(ask)()
        held = await sync_to_async(lambda: connection)()
        wrapper = await sync_to_async(lambda: held._connections[held._alias])()
        assert wrapper.connection is not None

    assert wrapper.connection is None


async def test_an_async_handler_without_a_database_opens_none(calls: WorkerInvoker) -> None:
    before = threading.active_count()

    async with calls.around_async():
        await asyncio.sleep(0)

    assert threading.active_count() == before


async def test_the_connection_of_a_sync_handler_is_closed(calls: WorkerInvoker) -> None:
    wrappers = []

    def handler() -> None:
        Activity.objects.count()
        wrappers.append(connection._connections[connection._alias])
        assert wrappers[0].connection is not None

    await calls.call_sync(handler)

    assert wrappers[0].connection is None


async def test_a_sync_handler_has_the_callers_context(calls: WorkerInvoker) -> None:
    word.set("the attempt's")

    assert await calls.call_sync(word.get) == "the attempt's"


async def test_a_stop_iteration_ends_every_call_into_a_thread(
    calls: WorkerInvoker, threads: ConnectionClosingExecutor
) -> None:
    """Before Python 3.12 a coroutine would wait for it forever."""
    asyncio.get_running_loop().set_default_executor(threads)
    async with calls.around_async():
        for call in (sync_to_async(next)(iter(())), asyncio.to_thread(next, iter(())), calls.call_sync(next, iter(()))):
            with pytest.raises(RuntimeError, match="raised StopIteration"):
                await asyncio.wait_for(call, 10)
