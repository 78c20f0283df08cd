"""`DjangoSession` against the contract of the SDK's own `SQLiteSession`, inside and outside of activities."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest
from agents import Agent, Runner, SQLiteSession
from agents.memory import Session
from agents.testing import ScriptedModel, assistant_message
from asgiref.sync import async_to_sync

from django_agentexec import DjangoSession, InvalidOption, activity, task
from django_agentexec.models import Activity, Conversation, ConversationItem, Status
from django_agentexec.testing import drain
from tests.support.contexts import Empty
from tests.support.conversation_items import call, output, user

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queue_in_memory")]


async def use_plainly(session: Any) -> list[Any]:
    seen = [await session.get_items(), await session.pop_item()]
    await session.add_items([])
    await session.add_items([user("one"), user("two")])
    await session.add_items([call("1"), output("1"), {"role": "assistant", "content": "drei €"}])
    seen += [await session.get_items(), await session.get_items(limit=1), await session.get_items(limit=0)]
    seen += [await session.get_items(limit=-1), await session.get_items(limit=100), await session.get_items(limit=3)]
    return seen


async def use_pop(session: Any) -> list[Any]:
    await session.add_items([user("one"), user("two")])
    seen = [await session.pop_item(), await session.get_items()]
    await session.add_items([user("three")])
    seen += [await session.get_items(), await session.pop_item(), await session.pop_item(), await session.pop_item()]
    await session.add_items([user("four")])
    return [*seen, await session.get_items()]


async def use_clear(session: Any) -> list[Any]:
    await session.add_items([user("one"), user("two")])
    await session.clear_session()
    seen = [await session.get_items(), await session.pop_item()]
    await session.add_items([user("summary")])
    await session.add_items([user("next")])
    return [*seen, await session.get_items()]


async def use_in_runs(session: Any) -> list[Any]:
    model = ScriptedModel([[assistant_message("hello")], [assistant_message("again")]])
    agent = Agent("Clerk", model=model)
    await Runner.run(agent, "Hello", session=session)
    await Runner.run(agent, "And now?", session=session)
    inputs = [each.input for each in model.calls]
    return [await session.get_items(), inputs]


Use = Callable[[Any], Awaitable[list[Any]]]
USES = [use_plainly, use_pop, use_clear, use_in_runs]


def without_ids(value: Any) -> Any:
    """Remove the random ids of scripted answers."""
    if isinstance(value, list):
        return [without_ids(each) for each in value]
    if isinstance(value, dict):
        return {name: without_ids(each) for name, each in value.items() if name != "id"}
    return value


def contract(use: Use) -> Any:
    session = SQLiteSession("one")
    try:
        return without_ids(async_to_sync(use)(session))
    finally:
        session.close()


def test_it_has_the_protocol() -> None:
    assert isinstance(DjangoSession("one"), Session)


@pytest.mark.parametrize("use", USES)
def test_outside_of_activities_it_is_as_sqlite_session(use: Use) -> None:
    assert without_ids(async_to_sync(use)(DjangoSession("one"))) == contract(use)


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("is_sync", [False, True])
def test_in_an_activity_it_is_as_sqlite_session(use: Use, is_sync: bool) -> None:
    async def handler(agent_id: UUID, context: Empty) -> list[Any]:
        return without_ids(await use(DjangoSession("one")))  # type: ignore[no-any-return]

    def sync_handler(agent_id: UUID, context: Empty) -> list[Any]:
        return without_ids(async_to_sync(use)(DjangoSession("one")))  # type: ignore[no-any-return]

    task("clerk")(sync_handler if is_sync else handler).enqueue(Empty())
    drain()

    row = Activity.objects.get()
    assert (row.status, row.result) == (Status.COMPLETE, contract(use)), row.traceback
    # Other readers see the same after the end.
    assert without_ids(async_to_sync(DjangoSession("one").get_items)()) == _last_history(row.result, use)


def _last_history(result: Any, use: Use) -> Any:
    return {use_plainly: result[2:3], use_in_runs: result[0:1]}.get(use, result[-1:])[0]


def test_run_sync_uses_it_outside_of_activities() -> None:
    agent = Agent("Clerk", model=ScriptedModel([[assistant_message("hello")]]))

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)  # the SDK uses the thread's loop, and otherwise leaves a new loop open
    try:
        Runner.run_sync(agent, "Hello", session=DjangoSession("one"))
    finally:
        asyncio.set_event_loop(None)
        loop.close()

    assert [row.item.get("role") for row in ConversationItem.objects.all()] == ["user", "assistant"]


def test_limits_never_split_a_call_from_its_output() -> None:
    items = [user("one"), {"type": "reasoning", "id": "r"}, call("1"), call("2"), output("1"), output("2"), user("two")]
    Conversation.objects.import_history("one", items)

    def read(**options: Any) -> list[Any]:
        return async_to_sync(DjangoSession("one", **options).get_items)()

    assert read() == items
    for limit in range(1, 6):  # a call is not accepted without its reasoning
        assert read(limit=limit) == items[-1:]
    assert read(limit=6) == items[1:]
    assert read(limit=7) == items
    assert read(max_tokens=15) == items[-1:]
    assert read(max_tokens=10_000) == items
    assert async_to_sync(DjangoSession("one", limit=7).get_items)(limit=1) == items[-1:]


@pytest.mark.parametrize("call_id", [["1"], {}, {"a": 1}, 7, None])
def test_an_impossible_id_of_a_call_does_not_end_the_conversation(call_id: Any) -> None:
    items = [user("one"), call(call_id), output("other")]
    Conversation.objects.import_history("odd", items)

    for session in (DjangoSession("odd"), DjangoSession("odd", limit=3)):
        assert async_to_sync(session.get_items)() == [user("one")]


def test_max_tokens_counts_with_count_tokens() -> None:
    class Words(DjangoSession):
        def count_tokens(self, item: Any) -> int:
            return len(item["content"].split())

    Conversation.objects.import_history("one", [user("a b c"), user("d e"), user("f")])

    assert async_to_sync(Words("one", max_tokens=5).get_items)() == [user("d e"), user("f")]


def test_a_new_conversation_has_owner_and_metadata() -> None:
    with activity.acting_as(type("User", (), {"pk": 7})()):
        async_to_sync(DjangoSession("one", metadata={"tenant": "a"}).add_items)([user("one")])
    async_to_sync(DjangoSession("two", owner="8").add_items)([user("one")])

    assert list(Conversation.objects.order_by("session_id").values_list("session_id", "owner", "metadata")) == [
        ("one", "7", {"tenant": "a"}),
        ("two", "8", {}),
    ]


def test_items_that_no_database_holds_are_made_storable() -> None:
    items = [user("half \ud83d"), user("nul \0 end")]

    async_to_sync(DjangoSession("one").add_items)(items)

    stored = async_to_sync(DjangoSession("one").get_items)()
    assert [item["content"] for item in stored] == [
        "half \N{REPLACEMENT CHARACTER}",
        "nul \N{REPLACEMENT CHARACTER} end",
    ]


@pytest.mark.parametrize("item", ["text", 1, None, {"x": object()}, ["a"]])
def test_other_items_are_refused(item: Any) -> None:
    with pytest.raises(InvalidOption, match="of a conversation"):
        Conversation.objects.import_history("one", [user("fine"), item])
    assert not Conversation.objects.exists()


@pytest.mark.parametrize("session_id", ["", " ", "x" * 256, "nul\0", 7, None])
def test_impossible_session_ids_are_refused(session_id: Any) -> None:
    with pytest.raises(InvalidOption, match="session id"):
        DjangoSession(session_id)


@pytest.mark.parametrize("options", [{"limit": 0}, {"limit": True}, {"max_tokens": -1}, {"max_tokens": 1.5}])
def test_impossible_limits_are_refused(options: Any) -> None:
    with pytest.raises(InvalidOption, match="must be a whole number from 1"):
        DjangoSession("one", **options)
