"""The option `conversation` of an enqueue: the conversation of an activity, and its turns one after another."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from asgiref.sync import async_to_sync
from pydantic import BaseModel

from django_agentexec import Attempt, DjangoSession, InvalidOption, activity, task
from django_agentexec.models import Activity, Conversation
from django_agentexec.testing import drain

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queue_in_memory")]


class Text(BaseModel):
    text: str = "x"


def clerk(**options: Any) -> Any:
    async def handler(agent_id: UUID, context: Text, attempt: Attempt) -> None:
        if attempt.conversation is not None:
            await attempt.conversation.add_items([{"role": "user", "content": context.text}])

    return task("clerk", **options)(handler)


def test_it_takes_a_session_id_a_conversation_or_a_session() -> None:
    definition = clerk()
    first = definition.enqueue(Text(), conversation="one", metadata={"tenant": "a"})
    conversation = Conversation.objects.get()
    for given in (conversation, DjangoSession("one"), "one"):
        definition.enqueue(Text(), conversation=given)
    definition.enqueue(Text(), conversation=DjangoSession("two", owner="9", metadata={"x": 1}))
    definition.enqueue(Text())

    rows = list(Activity.objects.order_by("agent_id"))
    assert rows[0].agent_id == first.agent_id
    assert [row.conversation_id for row in rows[:4]] == [conversation.pk] * 4
    assert {row.lock_key for row in rows[:4]} == {f"conversation:{conversation.pk}"}
    assert (conversation.session_id, conversation.metadata, conversation.owner) == ("one", {"tenant": "a"}, None)
    two = Conversation.objects.get(session_id="two")
    assert (two.owner, two.metadata, rows[4].conversation_id) == ("9", {"x": 1}, two.pk)
    assert (rows[5].conversation_id, rows[5].lock_key) == (None, "")


def test_many_are_turns_of_one_conversation_in_order() -> None:
    clerk().enqueue_many([Text(text=str(number)) for number in range(5)], conversation="one")
    drain()

    items = async_to_sync(DjangoSession("one").get_items)()
    assert [item["content"] for item in items] == list("01234")


def test_a_child_is_a_turn_of_the_conversation_that_spawn_names() -> None:
    clerk()

    @task("boss")
    def boss(agent_id: UUID, context: Text, attempt: Attempt) -> None:
        attempt.spawn("clerk", Text(text="child"), conversation="one")
        attempt.spawn_many("clerk", [Text(text="more")], conversation="one")

    boss.enqueue(Text())
    drain()

    items = async_to_sync(DjangoSession("one").get_items)()
    assert sorted(item["content"] for item in items) == ["child", "more"]


def test_a_task_with_a_lock_key_is_refused() -> None:
    definition = clerk(lock_key="text:{text}")
    with pytest.raises(InvalidOption, match=r"lock key 'text:\{text\}', but an activity has a single lock key"):
        definition.enqueue(Text(), conversation="one")
    assert not Activity.objects.exists()
    assert not Conversation.objects.exists()


@pytest.mark.parametrize("given", ["", 7, object(), Conversation(pk=None, session_id="new")])
def test_other_values_are_refused(given: Any) -> None:
    definition = clerk()
    with pytest.raises(InvalidOption):
        definition.enqueue(Text(), conversation=given)
    assert not Activity.objects.exists()


def test_the_owner_is_the_user_who_enqueues() -> None:
    with activity.acting_as(type("User", (), {"pk": 7})()):
        clerk().enqueue(Text(), conversation="one")

    assert Conversation.objects.get().owner == "7"


def test_a_retry_with_another_context_keeps_the_lock_of_the_conversation() -> None:
    handle = clerk().enqueue(Text(), conversation="one")
    activity.cancel(handle.agent_id)

    activity.retry(handle.agent_id, context=Text(text="other"))

    row = Activity.objects.get()
    assert row.lock_key == Conversation.objects.get().lock_key
    drain()
    assert [item["content"] for item in async_to_sync(DjangoSession("one").get_items)()] == ["other"]
