"""Conversations in real pools: kills at each place, and turns one after another."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import async_to_sync

from django_agentexec import DjangoSession, Status
from django_agentexec.models import Activity, Conversation, ConversationItem
from tests.e2e.journal import Journal
from tests.e2e.kills import SETTINGS, plan_deaths, survived
from tests.support.pool_process import run_burst
from tests.testapp.agents import Work, work
from tests.testapp.conversing import converse
from tests.testapp.orchestration import DEATHS

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sdk_in_pools")]

PLACES = ["after add 0", "before add 2", "after clear", "end"]


def text_of(item: Any) -> str:
    content = item["content"]
    return str(content if isinstance(content, str) else content[0]["text"])


def test_kills_at_every_place_store_each_item_once(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DEATHS, journal.path)
    plan_deaths(journal, PLACES)
    Conversation.objects.import_history("one", [{"role": "user", "content": str(number)} for number in range(5)])

    converse.enqueue_many([Work(journal=journal.path, name=name) for name in ("a", "b")], conversation="one")
    run_burst("--workers", "1", **SETTINGS)

    rows = list(Activity.objects.order_by("agent_id"))
    assert survived(journal) == []
    assert [(row.status, row.result) for row in rows] == [(Status.COMPLETE, "5"), (Status.COMPLETE, "2")]
    assert rows[0].crashes == len(PLACES)
    history = async_to_sync(DjangoSession("one").get_items)()
    assert [text_of(item) for item in history] == ["summary of 2 items", "answer b"]
    assert journal.names("tool") == ["a", "b"]
    # What the first turn has removed, its own items, what the second has removed, its own items.
    assert list(ConversationItem.objects.values_list("activity", "key")) == [
        *[(None, "")] * 5,
        *((row.agent_id, f"#{number}") for row in rows for number in range(2)),
    ]


def test_turns_of_a_conversation_do_not_overlap(journal: Journal) -> None:
    turns = [Work(journal=journal.path, name=str(number), seconds=0.1) for number in range(6)]
    work.enqueue_many(turns, conversation="one")
    run_burst("--workers", "2", "--concurrency", "5")

    events = journal.events()
    assert [(each.event, each.name) for each in events] == [
        (event, str(number)) for number in range(6) for event in ("start", "end")
    ]
