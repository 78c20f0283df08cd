"""Sessions in later attempts: the same history as at the beginning, and each item once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from agents import Agent, Runner, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call
from asgiref.sync import async_to_sync, sync_to_async

from django_agentexec import (
    Attempt,
    DjangoSession,
    InvalidOption,
    OpenAIRunner,
    Pipeline,
    StaleAttempt,
    activity,
    step,
    task,
)
from django_agentexec.activity.store import apply_one
from django_agentexec.activity.transitions import Cancel
from django_agentexec.models import Activity, Conversation, ConversationItem, ConversationTurn, Status
from django_agentexec.tasks import registry
from django_agentexec.testing import drain
from tests.support.contexts import Empty
from tests.support.conversation_items import user
from tests.support.durable_agents import DONE, TASK, drained

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("durable_tasks")]


@function_tool
def look_up(name: str) -> str:
    """Look a name up."""
    DONE[f"look_up {name}"] += 1
    return f"{name} is fine"


def fail_at(number: int) -> None:
    """Fail in the first attempt at the point with this number."""
    DONE[f"point {number}"] += 1
    if DONE["point of failure"] == number and DONE[f"point {number}"] == 1:
        raise ConnectionError(f"point {number}")


def history(session_id: str = "one") -> list[str]:
    return [text_of(item) for item in async_to_sync(DjangoSession(session_id).get_items)()]


def text_of(item: Any) -> str:
    content = item.get("content")
    if isinstance(content, list):
        return "".join(part["text"] for part in content)
    return str(content or item.get("output") or item["type"])


def run(handler: Callable[..., Any], **options: Any) -> Activity:
    task(TASK, max_retries=2, backoff=lambda *_: 0.0)(handler).enqueue(Empty(), **options)
    return drained()


@pytest.mark.parametrize("point", [0, 1, 2, 3])
@pytest.mark.parametrize("durable", [True, False])
def test_a_retry_adds_no_item_twice(point: int, durable: bool) -> None:
    DONE["point of failure"] = point
    Conversation.objects.import_history("one", [user("earlier")])
    answers = [[function_call("look_up", {"name": "Acme"}, call_id="1")], [assistant_message("Acme is fine.")]]
    answers += [[assistant_message("You are welcome.")]]
    shared, models = ScriptedModel(answers), list[ScriptedModel]()

    async def handler(agent_id: UUID, context: Empty) -> None:
        models.append(shared if durable else ScriptedModel(answers))
        agent = Agent("Clerk", model=models[-1], tools=[look_up])
        runner = OpenAIRunner(agent_id, durable=durable)
        session = DjangoSession("one")
        fail_at(0)
        await runner.run(agent, "Check Acme.", session=session)
        fail_at(1)
        await session.add_items([user("a note")])
        fail_at(2)
        await runner.run(agent, "Thanks.", session=session)
        fail_at(3)

    row = run(handler)

    assert (row.status, row.attempt) == (Status.COMPLETE, 2), row.traceback
    expected = ["earlier", "Check Acme.", "function_call", "Acme is fine", "Acme is fine.", "a note", "Thanks."]
    assert history() == [*expected, "You are welcome."]
    assert [text_of(item) for item in models[-1].calls[-1].input] == expected
    assert DONE["look_up Acme"] == (1 if durable or point == 0 else 2)
    assert list(ConversationItem.objects.exclude(activity=None).values_list("key", flat=True)) == [
        f"#{number}" for number in range(7)
    ]


def test_a_later_attempt_does_not_see_items_that_others_have_added_since() -> None:
    Conversation.objects.import_history("one", [user("earlier")])
    seen: list[list[str]] = []

    async def handler(agent_id: UUID, context: Empty) -> None:
        session = DjangoSession("one")
        seen.append([text_of(item) for item in await session.get_items()])
        await session.add_items([user("mine")])
        seen[-1] += [text_of(item) for item in await session.get_items()]
        if len(seen) == 1:
            await _outside("one", user("theirs"))
            raise ConnectionError

    run(handler)

    assert seen == [["earlier", "earlier", "mine"]] * 2
    assert history() == ["earlier", "mine", "theirs"]
    assert ConversationTurn.objects.get().start == 1


async def _outside(session_id: str, item: Any) -> None:
    conversation = await Conversation.objects.aget(session_id=session_id)
    await sync_to_async(conversation.append)([item])


@pytest.mark.parametrize("point", [1, 2, 3, 4, 5, 6])
def test_removals_are_repeated_as_well(point: int) -> None:
    DONE["point of failure"] = point
    Conversation.objects.import_history("one", [user("a"), user("b")])
    seen: list[list[str]] = []

    async def handler(agent_id: UUID, context: Empty) -> None:
        session = DjangoSession("one")
        await session.add_items([user("c"), user("d")])
        fail_at(1)
        popped = [await session.pop_item() for _ in range(3)]
        fail_at(2)
        await session.add_items([user("e")])
        fail_at(3)
        seen.append([text_of(item) for item in [*popped, *await session.get_items()]])
        await session.clear_session()
        fail_at(4)
        await session.add_items([user("summary")])
        fail_at(5)
        await session.add_items([user("f")])
        await session.pop_item()
        fail_at(6)

    row = run(handler)

    assert (row.status, row.attempt) == (Status.COMPLETE, 2), row.traceback
    assert seen[-1] == ["d", "c", "b", "a", "e"]
    assert history() == ["summary"]


@pytest.mark.parametrize("point", [1, 2])
def test_a_turn_that_fails_within_a_compaction_loses_nothing(point: int) -> None:
    Conversation.objects.import_history("one", [user("a"), user("b")])

    async def handler(agent_id: UUID, context: Empty) -> None:
        session = DjangoSession("one")
        await session.add_items([user("c")])
        await session.clear_session()
        if point == 1:
            raise ConnectionError
        await session.add_items([user("summary")])
        raise ConnectionError

    row = run(handler)

    assert (row.status, row.attempt) == (Status.ERROR, 3)
    assert history() == (["a", "b", "c"] if point == 1 else ["summary"])


def test_a_removal_at_the_end_of_the_handler_is_stored() -> None:
    Conversation.objects.import_history("one", [user("a"), user("b")])

    async def handler(agent_id: UUID, context: Empty) -> None:
        await DjangoSession("one").pop_item()

    run(handler)

    assert history() == ["a"]


def test_a_compaction_restores_what_a_later_attempt_does_not_remove() -> None:
    Conversation.objects.import_history("one", [user("a"), user("b")])

    async def handler(agent_id: UUID, context: Empty) -> None:
        session = DjangoSession("one")
        DONE["attempt"] += 1
        if DONE["attempt"] == 1:
            await session.clear_session()
            await session.add_items([user("summary")])
            raise ConnectionError
        await session.add_items([user("other")])

    run(handler)

    assert history() == ["a", "b", "other"]


def test_the_turn_is_that_of_the_last_attempt() -> None:
    async def handler(agent_id: UUID, context: Empty) -> None:
        session = DjangoSession("one")
        DONE["attempt"] += 1
        await session.add_items([user("same")])
        if DONE["attempt"] == 1:
            await session.add_items([user("first"), user("more")])
            raise ConnectionError
        if DONE["attempt"] == 2:
            raise ConnectionError
        assert [text_of(item) for item in await session.get_items()] == ["same"]

    row = run(handler)

    assert (row.status, row.attempt) == (Status.COMPLETE, 3)
    assert history() == ["same"]


def test_an_interrupted_turn_leaves_no_call_without_output() -> None:
    items: list[Any] = [
        user("one"),
        {"type": "reasoning", "id": "r", "summary": []},
        {"type": "function_call", "call_id": "1", "name": "look_up", "arguments": "{}"},
    ]

    async def handler(agent_id: UUID, context: Empty) -> None:
        session = DjangoSession("one")
        await session.add_items(items)
        assert await session.get_items() == items, "its own items are complete"
        raise ConnectionError

    row = run(handler)

    assert row.status == Status.ERROR
    assert history() == ["one"]
    assert ConversationItem.objects.count() == 3

    async def output(agent_id: UUID, context: Empty) -> None:
        await DjangoSession("one").add_items([{"type": "function_call_output", "call_id": "1", "output": "late"}])

    registry.unregister("clerk")
    task("clerk")(output).enqueue(Empty())
    drain()

    assert history() == ["one", "reasoning", "function_call", "late"]


def test_an_attempt_that_lost_its_activity_writes_nothing() -> None:
    async def handler(agent_id: UUID, context: Empty) -> None:
        session = DjangoSession("one")
        await session.add_items([user("one")])
        await sync_to_async(apply_one)(Cancel(agent_id=agent_id))
        for refused in (session.add_items([user("two")]), DjangoSession("two").add_items([user("three")])):
            with pytest.raises(StaleAttempt):
                await refused
        DONE["refused"] += 1
        await session.add_items([user("four")])

    run(handler)

    assert DONE["refused"] == 1
    assert history() == ["one"]
    assert history("two") == []


def test_runs_at_the_same_time_begin_one_turn() -> None:
    async def handler(agent_id: UUID, context: Empty) -> None:
        await asyncio.gather(*(DjangoSession("one").add_items([user(str(number))]) for number in range(20)))
        fail_at(0)

    row = run(handler)

    assert row.status == Status.COMPLETE, row.traceback
    assert sorted(history(), key=int) == [str(number) for number in range(20)]
    assert ConversationTurn.objects.count() == 1


def test_each_step_of_a_pipeline_is_a_part_of_the_turn() -> None:
    seen: list[list[str]] = []

    class Dossier(Pipeline):
        @step(0)
        async def first(self, context: Empty) -> int:
            await DjangoSession("one").add_items([user("first")])
            return 1

        @step(1, max_retries=1, backoff=lambda *_: 0.0)
        async def second(self, previous: int) -> Empty:
            session = DjangoSession("one")
            await session.add_items([user("second")])
            seen.append([text_of(item) for item in await session.get_items()])
            DONE["second"] += 1
            if DONE["second"] == 1:
                raise ConnectionError
            return Empty()

    Dossier.enqueue(Empty())
    drain()

    row = Activity.objects.get()
    assert row.status == Status.COMPLETE, row.traceback
    assert seen == [["first", "second"]] * 2
    assert history() == ["first", "second"]


def test_a_plain_run_of_the_sdk_in_a_handler_keeps_the_turn_of_its_last_attempt() -> None:
    answers = iter(["bad", "good"])

    async def handler(agent_id: UUID, context: Empty) -> None:
        agent = Agent("Clerk", model=ScriptedModel([[assistant_message(next(answers))]]))
        await Runner.run(agent, "Hello", session=DjangoSession("one"))
        fail_at(0)

    run(handler)

    assert history() == ["Hello", "good"]


def test_the_activity_and_its_retry_know_the_conversation() -> None:
    seen: list[Any] = []

    async def handler(agent_id: UUID, context: Empty, attempt: Attempt) -> None:
        session = attempt.conversation
        assert session is not None
        seen.append((session.session_id, DjangoSession.for_attempt(attempt, limit=1).limit))
        await session.add_items([user("one")])
        fail_at(0)

    row = run(handler, conversation="support 7", metadata={"tenant": "a"})

    conversation = Conversation.objects.get()
    assert (conversation.session_id, conversation.metadata) == ("support 7", {"tenant": "a"})
    assert (row.conversation_id, row.lock_key) == (conversation.pk, conversation.lock_key)
    assert seen == [("support 7", 1)] * 2
    assert history("support 7") == ["one"]


def test_without_a_conversation_for_attempt_explains_the_option() -> None:
    def handler(agent_id: UUID, context: Empty, attempt: Attempt) -> None:
        assert attempt.conversation is None
        DjangoSession.for_attempt(attempt)

    row = run(handler)

    assert row.status == Status.ERROR
    assert InvalidOption.__name__ in row.error
    assert "conversation=" in row.error


def test_pruned_activities_leave_their_items() -> None:
    async def handler(agent_id: UUID, context: Empty) -> None:
        session = DjangoSession("one")
        await session.add_items([user("one")])
        await session.clear_session()
        await session.add_items([user("two")])

    run(handler)
    Activity.objects.all().delete()

    assert history() == ["two"]
    assert activity.list().total == 0
