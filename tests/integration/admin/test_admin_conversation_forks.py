"""Forks of conversations, and the context window, on the page of a conversation."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from asgiref.sync import sync_to_async
from django.test import Client, override_settings

from django_agentexec import DjangoSession, InvalidOption
from django_agentexec.models import Activity, AgentCall, CallKind, CallState, Conversation, ConversationItem, Status
from tests.support.admin_pages import CONVERSATIONS, TENANTS, WRITER, conversation_page, signed_in

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("answer_task", "queue_in_memory")]

SAID = ("Where is it?", "On its way.", "And the other?", "Lost.")


def conversation() -> Conversation:
    """Return a conversation with two turns."""
    metadata = {"organization_id": "org-1"}
    found = Conversation.objects.create(session_id="ticket-4127", title="Parcel", owner="7", metadata=metadata)
    for number in (0, 2):
        fields = {"agent_type": "answer", "status": Status.COMPLETE, "queue": "default", "metadata": metadata}
        row = Activity.objects.create(conversation=found, context={"text": SAID[number]}, **fields)
        for offset, role in enumerate(("user", "assistant")):
            position = number + offset
            item = {"role": role, "content": SAID[position]}
            values = {"position": position, "item": item, "activity": row, "key": f"#{offset}"}
            ConversationItem.objects.create(conversation=found, **values)
    return found


def last_item_of_first_turn(found: Conversation) -> int:
    return found.items.get(position=1).pk


def fork(client: Client, found: Conversation, item: object, **form: str) -> Any:
    return client.post(f"{CONVERSATIONS}{found.pk}/fork/?item={item}", form)


async def history(found: Conversation) -> list[str]:
    return [str(item["content"]) for item in await DjangoSession(found.session_id).get_items()]  # type: ignore[typeddict-item]


async def test_a_fork_is_a_conversation_up_to_a_turn_that_continues() -> None:
    found, copy = await sync_to_async(fork_and_continue)()

    assert await history(copy) == list(SAID[:2])
    assert await history(found) == list(SAID)


def fork_and_continue() -> tuple[Conversation, Conversation]:
    found, client = conversation(), signed_in(*WRITER)
    item = last_item_of_first_turn(found)
    address = f"{CONVERSATIONS}{found.pk}/fork/?item={item}"
    assert address in conversation_page(client, found)
    assert "Fork of Parcel" in client.get(address).content.decode()

    response = fork(client, found, item, title="A second try")

    copy = Conversation.objects.exclude(pk=found.pk).get()
    assert response["Location"] == f"{CONVERSATIONS}{copy.pk}/change/"
    assert (copy.title, copy.owner, copy.metadata) == ("A second try", "7", found.metadata)
    text = conversation_page(client, copy)
    assert "On its way." in text
    assert "Lost." not in text
    assert "Message to the agent" in text
    assert client.post(f"{CONVERSATIONS}{copy.pk}/message/", {"message": "Which one?"}).status_code == 302
    turn = Activity.objects.latest("agent_id")
    assert (turn.conversation_id, turn.context["text"]) == (copy.pk, "Which one?")
    return found, copy


def test_a_fork_needs_the_permission_to_write_and_a_turn_of_the_conversation() -> None:
    found, client = conversation(), signed_in(*WRITER)
    item = last_item_of_first_turn(found)
    other = Conversation.objects.create(session_id="other")
    reader = signed_in("view_activity", "view_conversation", name="jo")

    assert fork(reader, found, item).status_code == 403
    assert f"fork/?item={item}" not in conversation_page(reader, found)
    for unknown in ("", "x", 10**30, item + 1_000):
        assert fork(client, found, unknown).status_code == 404
    assert fork(client, other, item).status_code == 404
    assert client.post(f"{CONVERSATIONS}{uuid4()}/fork/?item={item}").status_code == 404
    found.items.filter(pk=item).update(removed_by=uuid4())
    assert fork(client, found, item).status_code == 404
    assert Conversation.objects.count() == 2


def test_an_item_of_another_conversation_is_refused() -> None:
    other = Conversation.objects.create(session_id="other")

    with pytest.raises(InvalidOption, match="is not of the conversation"):
        other.fork(conversation().items.all()[0])
    assert Conversation.objects.count() == 2


async def test_the_async_version_forks() -> None:
    found = await sync_to_async(conversation)()
    item = await found.items.afirst()
    assert item is not None

    copy = await found.afork(item, title="Copy")

    assert (copy.title, copy.owner, await copy.items.acount()) == ("Copy", found.owner, 1)


@pytest.mark.parametrize("title", ["x" * 256, "a\0b"])
def test_a_title_that_no_row_holds_is_refused(title: str) -> None:
    found = conversation()

    with pytest.raises(InvalidOption, match="The title"):
        found.fork(found.items.all()[0], title=title)
    assert Conversation.objects.count() == 1


@override_settings(AGENTEXEC=TENANTS)
def test_a_conversation_of_another_tenant_is_not_forked() -> None:
    found = conversation()
    item = last_item_of_first_turn(found)

    assert fork(signed_in(*WRITER, name="eve", first_name="org-2"), found, item).status_code == 404
    assert fork(signed_in(*WRITER, first_name="org-1"), found, item).status_code == 302
    assert [each.metadata for each in Conversation.objects.all()] == [{"organization_id": "org-1"}] * 2


def test_the_context_window_is_that_of_the_latest_call() -> None:
    found, client = conversation(), signed_in(*WRITER)
    assert "data-window" not in conversation_page(client, found)
    first, second = Activity.objects.order_by("agent_id")
    values = {"kind": CallKind.MODEL, "state": CallState.DONE, "output_tokens": 400, "cost": Decimal(1)}
    AgentCall.objects.create(activity=first, name="gpt-5", provider="openai", input_tokens=2_000, **values)
    AgentCall.objects.create(activity=second, name="gpt-5", provider="openai", input_tokens=13_000, **values)
    AgentCall.objects.create(activity=second, name="house", input_tokens=99_000, path="/1:3", **values)

    text = conversation_page(client, found)

    assert "13.4k of 400k tokens" in text
    assert "In the latest call of gpt-5." in text
    AgentCall.objects.create(activity=second, name="house", input_tokens=20_000, ordinal=1, **values)
    assert "20.4k tokens" in conversation_page(client, found)
