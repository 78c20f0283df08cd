"""`activity_changed`: once per committed change, after the commit, and harmless whatever a receiver does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection, transaction

from django_agentexec import activity
from django_agentexec.models import Activity
from django_agentexec.signals import activity_changed
from tests.rows import claimed_ids, row, start
from tests.testapp.agents import Text, shout

pytestmark = pytest.mark.django_db(transaction=True)

Heard = list[tuple[str, str | None]]


@pytest.fixture
def heard() -> Iterator[Heard]:
    """Status and message of what was announced."""
    changes: Heard = []

    def receive(activity: Activity, log: Any, **_: Any) -> None:
        assert not connection.in_atomic_block
        changes.append((activity.status, log and log.message))

    activity_changed.connect(receive)
    yield changes
    activity_changed.disconnect(receive)


def test_every_change_is_announced_once(heard: Heard) -> None:
    agent_id = shout.enqueue(Text()).agent_id
    start(agent_id)
    activity.update(agent_id, "Half", 50)
    activity.complete(agent_id)

    assert heard == [
        ("queued", "Waiting to start."),
        ("running", "Task started."),
        ("running", "Half"),
        ("complete", "Task completed successfully."),
    ]


def test_usage_is_announced_without_a_line(heard: Heard) -> None:
    agent_id = activity.create("import")
    activity.add_usage(agent_id, {"requests": 1})

    assert heard[-1] == ("queued", None)


def test_nothing_is_announced_before_the_commit(heard: Heard) -> None:
    with transaction.atomic():
        agent_id = shout.enqueue(Text()).agent_id
        activity.cancel(agent_id)
        before = list(heard)

    assert before == []
    assert [status for status, _ in heard] == ["queued", "canceled"]


def test_a_rollback_is_not_announced(heard: Heard) -> None:
    with transaction.atomic():
        shout.enqueue(Text())
        transaction.set_rollback(True)

    assert heard == []


def test_a_refusal_is_not_announced(heard: Heard) -> None:
    agent_id = activity.create("import")
    activity.cancel(agent_id)
    heard.clear()

    assert activity.cancel_pending() == 0
    assert heard == []


def test_a_receiver_that_fails_stops_nothing(heard: Heard, caplog: pytest.LogCaptureFixture) -> None:
    def broken(**_: Any) -> None:
        raise ZeroDivisionError("a receiver's own")

    activity_changed.connect(broken)
    try:
        agent_id = shout.enqueue(Text()).agent_id
    finally:
        activity_changed.disconnect(broken)

    assert row(agent_id).status == "queued"
    assert claimed_ids() == [agent_id]
    assert heard == [("queued", "Waiting to start.")]
    assert "a receiver's own" in caplog.text
