"""The page of a conversation in a browser: it follows the turns, and messages and decisions are made in it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import Permission, User
from pydantic import BaseModel

from django_agentexec import activity, task
from django_agentexec.models import Activity, Approval, Conversation, ConversationItem
from django_agentexec.tasks import registry
from tests.browser.conftest import Page
from tests.support.activity_rows import start
from tests.support.approval_rows import waiting

SCROLLS = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
PICTURES = os.environ.get("AGENTEXEC_TEST_PICTURES", "")
"""A folder for screenshots, if they are wanted."""
TURNS = "document.querySelectorAll('[data-turn]').length"
IS_LIVE = "document.querySelector('[data-connection]').dataset.state === 'live'"


class Message(BaseModel):
    text: str


@pytest.fixture
def chat() -> Any:
    """A conversation whose first turn runs."""

    @task("answer")
    def answer(agent_id: UUID, context: Message) -> str:
        return ""

    conversation = Conversation.objects.create(session_id="ticket-4127", title="Double payment")
    agent_id = answer.enqueue(Message(text="I have paid twice."), conversation=conversation).agent_id
    start(agent_id)
    add(conversation, agent_id, {"role": "user", "content": "I have paid twice."})
    yield conversation
    registry.unregister("answer")


def add(conversation: Conversation, agent_id: UUID, *items: dict[str, Any]) -> None:
    row = Activity.objects.get(pk=agent_id)
    first = conversation.items.count()
    for number, item in enumerate(items, first):
        ConversationItem.objects.create(
            conversation=conversation, position=number, item=item, activity=row, key=f"#{number}"
        )


def say(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}


def allow(*names: str) -> None:
    User.objects.get(username="maria").user_permissions.add(*Permission.objects.filter(codename__in=names))


def picture(tab: Any, name: str) -> None:
    if PICTURES:
        for width, is_phone in ((1366, False), (390, True)):
            tab.resize(width, is_phone=is_phone)
            for scheme in ("light", "dark"):
                tab.prefer(color_scheme=scheme)
                tab.screenshot(Path(PICTURES) / f"{name}-{width}-{scheme}.png")


def test_the_page_follows_its_turns_and_keeps_what_is_being_written(live_page: Page, chat: Conversation) -> None:
    allow("view_conversation", "enqueue_task")
    agent_id = Activity.objects.get().pk
    live_page.open(f"/admin/agentexec/conversation/{chat.pk}/change/")
    tab = live_page.tab
    tab.until(IS_LIVE)
    assert tab.evaluate(TURNS) == 2
    tab.evaluate("document.querySelector('#ae-message').value = 'A draft'")

    activity.stream(agent_id, "I can see **both** payments.")
    tab.until("document.querySelector('.ae-stream')?.innerText.includes('both')")
    picture(tab, "conversation-streaming")
    add(chat, agent_id, say("I can see both payments."))
    activity.complete(agent_id, result="I can see both payments.")

    tab.until("document.querySelector('.ae-turn[data-role=agent] .ae-badge')?.innerText === 'Complete'")
    assert tab.evaluate("document.querySelector('#ae-message').value") == "A draft"
    assert not tab.evaluate("document.querySelector('.ae-stream')")


def test_a_message_is_sent_by_the_keyboard_and_a_decision_made_in_the_chat(page: Page, chat: Conversation) -> None:
    allow("view_conversation", "enqueue_task", "decide_approval")
    (approval,) = waiting({"tool": "refund_order", "arguments": {"order_number": 20931, "amount": 48.0}})
    Activity.objects.filter(pk=approval.activity_id).update(conversation=chat)
    page.open(f"/admin/agentexec/conversation/{chat.pk}/change/")
    tab = page.tab
    for width, is_phone in ((1366, False), (390, True)):
        tab.resize(width, is_phone=is_phone)
        assert not tab.evaluate(SCROLLS), width
    picture(tab, "conversation")
    tab.resize(1366)

    tab.follow("button[value=approve]")
    assert Approval.objects.get().status == "approved"
    assert "/conversation/" in tab.evaluate("location.pathname")
    tab.evaluate("document.querySelector('#ae-message').value = 'Thank you.'")
    sent = "new KeyboardEvent('keydown', {key: 'Enter', ctrlKey: true, bubbles: true, cancelable: true})"
    tab.evaluate(f"document.querySelector('#ae-message').dispatchEvent({sent})")
    tab.until(f"{TURNS} === 4")

    assert Activity.objects.latest("agent_id").context == {"text": "Thank you."}
