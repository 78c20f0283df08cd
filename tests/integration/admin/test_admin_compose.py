"""Messages to the agent and decisions on the page of a conversation."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from django.test import Client, override_settings

from django_agentexec import task
from django_agentexec.models import Activity, Approval, Conversation, ConversationItem, Status
from django_agentexec.tasks import registry
from tests.support.admin_pages import CONVERSATIONS, TENANTS, WRITER, Message, conversation_page, signed_in
from tests.support.approval_rows import waiting

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("answer_task", "queue_in_memory")]


def conversation(text: str = "Where is it?", **values: Any) -> Conversation:
    """Return a conversation with a turn that has answered this message."""
    found = Conversation.objects.create(session_id="ticket-4127", metadata={"organization_id": "org-1"})
    fields = {"agent_type": "answer", "status": Status.COMPLETE, "queue": "default"}
    context = {"text": text, "language": "de"}
    metadata = {"organization_id": "org-1"}
    row = Activity.objects.create(conversation=found, **{**fields, "context": context, "metadata": metadata, **values})
    item = {"role": "user", "content": [{"type": "input_text", "text": text}]}
    ConversationItem.objects.create(conversation=found, position=0, item=item, activity=row, key="#0")
    return found


def send(client: Client, found: Conversation, text: str) -> Any:
    return client.post(f"{CONVERSATIONS}{found.pk}/message/", {"message": text})


def test_a_message_is_the_next_turn_of_the_conversation() -> None:
    found, client = conversation(), signed_in(*WRITER)
    assert "Message to the agent" in conversation_page(client, found)

    response = send(client, found, "And when?\r\nPlease.")

    assert response.status_code == 302
    turn = Activity.objects.latest("agent_id")
    assert (turn.agent_type, turn.status, turn.conversation_id) == ("answer", Status.QUEUED, found.pk)
    assert turn.context == {"text": "And when?\nPlease.", "language": "de"}
    assert (turn.metadata, turn.lock_key) == ({"organization_id": "org-1"}, found.lock_key)
    assert turn.enqueued_by


@pytest.mark.parametrize("text", ["", "  \r\n ", "x" * 20_001])
def test_an_impossible_message_stays_in_the_form(text: str) -> None:
    found = conversation()

    response = send(signed_in(*WRITER), found, text)

    assert response.status_code == 400
    assert "A message has 1 to 20,000 characters" in response.content.decode()
    assert Activity.objects.count() == 1


def test_the_task_may_refuse_a_message() -> None:
    registry.unregister("answer")

    @task("answer", api=True, authorize=lambda user, context, metadata: "secret" not in context.text)
    def answer(agent_id: UUID, context: Message) -> str:
        return ""

    found, client = conversation(), signed_in(*WRITER)

    assert send(client, found, "a secret").status_code == 400
    assert send(client, found, "an order").status_code == 302


def test_messages_need_a_turn_that_shows_where_they_go_and_the_permission() -> None:
    found = conversation()
    reader = signed_in("view_activity", "view_conversation", name="reader")
    assert "Message to the agent" not in conversation_page(reader, found)
    assert send(reader, found, "Hello").status_code == 403
    writer = signed_in(*WRITER)
    assert writer.get(f"{CONVERSATIONS}{found.pk}/message/").status_code == 405
    Activity.objects.update(context={"text": "Something else.", "language": "de"})  # and which of them is the message?
    assert send(writer, found, "Hello").status_code == 403
    Activity.objects.update(agent_type="gone")
    assert "Message to the agent" not in conversation_page(writer, found)


@override_settings(AGENTEXEC=TENANTS)
def test_other_tenants_can_send_nothing() -> None:
    found = conversation()

    assert send(signed_in(*WRITER, first_name="org-2"), found, "Hello").status_code == 404
    assert send(signed_in(*WRITER, name="own", first_name="org-1"), found, "Hello").status_code == 302
    assert Activity.objects.latest("agent_id").metadata == {"organization_id": "org-1"}


def test_a_decision_is_made_in_the_chat() -> None:
    (approval,) = waiting({"arguments": {"to": "Acme"}})
    found = Conversation.objects.create(session_id="ticket-1")
    Activity.objects.update(conversation=found)
    reader = signed_in("view_activity", "view_conversation", name="reader")
    assert "Run send_letter?" in conversation_page(reader, found)
    assert 'value="approve"' not in conversation_page(reader, found)
    client = signed_in("view_activity", "view_conversation", "decide_approval")
    assert f'name="next" value="{CONVERSATIONS}{found.pk}/change/"' in conversation_page(client, found)

    client.post(f"/admin/agentexec/approval/{approval.id}/decide/", {"decision": "approve"})

    assert Approval.objects.get().status == "approved"
    assert "Run send_letter?" not in conversation_page(client, found)
