"""A suspension waits for the other calls in progress, and not for those around it."""

from __future__ import annotations

import asyncio
import threading

from django_agentexec.calls.active_calls import ActiveCalls


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def waits_for(calls: ActiveCalls, *paths: str) -> list[asyncio.Task[None]]:
    return [asyncio.ensure_future(calls.others_ended(path)) for path in paths]


def test_a_call_waits_for_models_and_tools() -> None:
    async def run() -> None:
        calls = ActiveCalls()
        calls.begin_model("~2")
        calls.begin_tool("/0:b")
        (wait,) = waits_for(calls, "/0:a")
        await settled()
        assert not wait.done()
        calls.end_model("~2")
        await settled()
        assert not wait.done()
        calls.end_tool("/0:b")
        await asyncio.wait_for(wait, 10)

    asyncio.run(run())


def test_tools_around_a_call_are_not_awaited() -> None:
    async def run() -> None:
        calls = ActiveCalls()
        for path in ("/0:a", "/0:a~2/1:b"):
            calls.begin_tool(path)
        calls.begin_model("/0:a~2/1:b^guard#0")
        await asyncio.wait_for(calls.others_ended("/0:a~2/1:b^guard#0"), 10)

    asyncio.run(run())


def test_calls_that_wait_do_not_await_each_other() -> None:
    async def run() -> None:
        calls = ActiveCalls()
        for path in ("/0:a", "/0:b"):
            calls.begin_tool(path)
            calls.begin_model(path)
        waits = waits_for(calls, "/0:a", "/0:b")
        await asyncio.wait_for(asyncio.gather(*waits), 10)

    asyncio.run(run())


def test_a_tool_with_a_similar_name_is_awaited() -> None:
    async def run() -> None:
        calls = ActiveCalls()
        calls.begin_tool("/0:call_1")
        (wait,) = waits_for(calls, "/0:call_10")
        await settled()
        assert not wait.done()
        calls.end_tool("/0:call_1")
        await asyncio.wait_for(wait, 10)

    asyncio.run(run())


def test_a_wait_that_is_canceled_leaves_nothing() -> None:
    async def run() -> None:
        calls = ActiveCalls()
        calls.begin_model("")
        calls.begin_tool("/0:a")
        (canceled,) = waits_for(calls, "/0:a")
        await settled()
        canceled.cancel()
        await asyncio.wait([canceled])
        calls.end_model("")
        (wait,) = waits_for(calls, "/0:b")
        await settled()
        assert not wait.done()  # the other call does not wait any more, but is in progress
        calls.end_tool("/0:a")
        await asyncio.wait_for(wait, 10)

    asyncio.run(run())


def test_calls_may_end_in_other_threads() -> None:
    async def run() -> None:
        calls = ActiveCalls()
        calls.begin_model("~2")
        (wait,) = waits_for(calls, "")
        await settled()
        threading.Thread(target=calls.end_model, args=["~2"]).start()
        await asyncio.wait_for(wait, 10)

    asyncio.run(run())
