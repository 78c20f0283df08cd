"""The admin in German: no page of the package mixes languages."""

from __future__ import annotations

import re
from decimal import Decimal
from html import unescape

import pytest
from django.apps import apps

from django_agentexec import activity, approvals
from django_agentexec.models import CallKind, CallState, Conversation, ConversationItem
from tests.support.activity_rows import start
from tests.support.admin_pages import ALL, CHANGE_LIST, DASHBOARD, page_of, signed_in
from tests.support.approval_rows import waiting
from tests.support.catalogue import entries
from tests.support.recorded_calls import add_call
from tests.testapp.agents import Text, shout

pytestmark = pytest.mark.django_db(transaction=True)

INBOX = "/admin/agentexec/approval/"


def english_texts() -> set[str]:
    """Return the texts of the catalogue that German writes differently."""
    pairs = [pair for entry in entries() for pair in zip(entry.ids, entry.texts, strict=True)]
    return {english for english, german in pairs} - {german for english, german in pairs}


def texts_of(page: str) -> set[str]:
    """Return the texts and labels of a page."""
    plain = re.sub(r"<script.*?</script>", "", page, flags=re.S)
    labels = re.findall(r'(?:aria-label|title|placeholder|data-label)="([^"]*)"', plain)
    return {" ".join(unescape(text).split()) for text in (*re.findall(r">([^<>]+)<", plain), *labels)}


@pytest.mark.usefixtures("german")
def test_no_page_mixes_languages() -> None:
    failed, complete = shout.enqueue(Text()).agent_id, shout.enqueue(Text()).agent_id
    start(failed)
    activity.error(failed, "kaputt")
    start(complete)
    activity.complete(complete, result={"text": "fertig"})
    client = signed_in(*ALL, "enqueue_task", "decide_approval")
    addresses = [CHANGE_LIST, f"{CHANGE_LIST}?status=error", f"{CHANGE_LIST}?metadata=a=b", DASHBOARD]
    addresses += [page_of(failed), page_of(complete), page_of(failed, "retry"), page_of(complete, "copy")]
    (pending,) = waiting(seconds=60)
    waiting({"kind": "question", "title": "Wohin?"}, {"kind": "in_doubt"})
    (decided,) = waiting()
    approvals.reject(decided.id, reason="Nein.")
    addresses += [*(f"{INBOX}?tab={tab}" for tab in ("waiting", "decided", "expired")), page_of(pending.activity_id)]

    for address in addresses:
        page = client.get(address).content.decode()
        main = page[page.index('id="content-main"') :]
        assert texts_of(main) & english_texts() == set(), address
    assert "Fehlgeschlagen" in client.get(CHANGE_LIST).content.decode()


@pytest.mark.usefixtures("german")
def test_no_page_of_calls_conversations_and_costs_mixes_languages() -> None:
    client = signed_in(
        *ALL, "enqueue_task", "view_conversation", "view_modelprice", "add_modelprice", "view_agentschedule",
        "add_agentschedule",
    )  # fmt: skip
    agent_id = shout.enqueue(Text(), conversation="ticket-4127").agent_id
    row = start(agent_id)
    add_call(row, CallKind.AGENT, agent="Clerk", input_tokens=3, cost=Decimal("0.02"))
    add_call(row, CallKind.MODEL, agent="Clerk", name="large-2", input_tokens=900, cost=Decimal("0.02"))
    tool = add_call(row, CallKind.TOOL, agent="Clerk", name="find_order", call_id="1", arguments={"order": 3})
    add_call(row, CallKind.TOOL, name="find_order", call_id="2", state=CallState.FAILED, error="kaputt", ordinal=1)
    conversation = Conversation.objects.get()
    ConversationItem.objects.create(
        conversation=conversation, position=0, item={"role": "user", "content": "Hallo"}, activity_id=agent_id, key="#0"
    )
    conversations, base = "/admin/agentexec/conversation/", page_of(agent_id)
    addresses = [base, page_of(agent_id, "cancel"), page_of(agent_id, "call", str(tool.id))]
    addresses += [conversations, f"{conversations}{conversation.pk}/change/", f"{conversations}?q=nichts"]
    addresses += [f"{CHANGE_LIST}usage/", f"{CHANGE_LIST}usage/?by=model&range=month", f"{CHANGE_LIST}?q=nichts"]
    addresses += ["/admin/agentexec/modelprice/", "/admin/agentexec/modelprice/add/", "/admin/agentexec/"]
    if apps.is_installed("django_agentexec.schedules"):
        addresses += [f"/admin/agentexec_schedules/agentschedule/{page}" for page in ("", "add/")]

    for address in addresses:
        response = client.get(address)
        assert response.status_code == 200, address
        page = response.content.decode()
        assert texts_of(page[page.index('id="content"') :]) & english_texts() == set(), address
    activity.cancel(agent_id)
    assert "Von hier abzweigen" in client.get(page_of(agent_id, "fork", str(tool.id))).content.decode()
