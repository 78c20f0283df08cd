"""A database that answers and accepts no writes: finished work is kept, and REST answers 503."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from django.db import OperationalError
from django.test import override_settings

from django_agentexec import ActivityLocked, Status, activity
from django_agentexec.activity.transitions import Complete
from django_agentexec.models import Activity
from django_agentexec.worker import committer as module
from django_agentexec.worker.committer import Committer
from tests.support.activity_rows import row, start
from tests.support.database_outages import missing_column, read_only_database
from tests.support.rest_api import admin, client, outside_task
from tests.testapp.agents import Text, shout

pytestmark = pytest.mark.django_db(transaction=True)

Outage = Callable[[], AbstractContextManager[None]]
OUTAGES = pytest.mark.parametrize("outage", [read_only_database, missing_column])


@pytest.fixture
def committer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Committer]:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(module, "MAX_PAUSE", 0.01)
    committer = Committer()
    yield committer
    committer.stop(10)


@OUTAGES
def test_an_end_is_kept_until_it_can_be_written(
    committer: Committer, outage: Outage, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent_id = shout.enqueue(Text()).agent_id
    start(agent_id)
    tries, apply = [], module.apply
    has_tried_often = threading.Event()

    def read_counters(*args: Any) -> Any:
        tries.append(args)
        if len(tries) > 2 * module.MAX_REJECTIONS:
            has_tried_often.set()
        return apply(*args)

    monkeypatch.setattr(module, "apply", read_counters)
    with outage():
        committer.start()
        written = committer.submit(Complete(agent_id=agent_id, fence=1, result="kept"))
        assert has_tried_often.wait(20)
        assert not written.done()

    assert written.result(10).status == Status.COMPLETE
    assert row(agent_id).result == "kept"


@OUTAGES
@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_rest_answers_503_in_json(outage: Outage, verb: str, caplog: pytest.LogCaptureFixture) -> None:
    agent_id, who = shout.enqueue(Text()).agent_id, client(admin())
    if verb == "retry":
        activity.cancel(agent_id)

    with outage():
        answer = who.post(f"/agents/activities/{agent_id}/{verb}/")

    assert answer.status_code == 503
    assert answer["Content-Type"] == "application/json"
    assert int(answer["Retry-After"]) > 0
    assert "Try again" in answer.json()["detail"]
    assert "percentage" not in answer.json()["detail"]
    assert "since the database is unavailable" in caplog.text


@OUTAGES
def test_an_enqueue_over_rest_answers_503(outage: Outage) -> None:
    who = client(admin())

    with outside_task(), outage():
        answer = who.post("/agents/tasks/read_title/", {"title": "x"}, format="json")

    assert answer.status_code == 503
    assert not Activity.objects.exists()


def test_reads_answer_503_while_a_column_is_missing() -> None:
    agent_id, who = shout.enqueue(Text()).agent_id, client(admin())

    with missing_column():
        answers = [who.get("/agents/activities/"), who.get(f"/agents/activities/{agent_id}/")]

    assert [answer.status_code for answer in answers] == [503, 503]


def test_reads_go_on_while_the_database_is_read_only() -> None:
    agent_id, who = shout.enqueue(Text()).agent_id, client(admin())

    with read_only_database():
        assert who.get(f"/agents/activities/{agent_id}/").status_code == 200


@pytest.mark.parametrize("error", [OperationalError("connection refused at 10.0.0.5"), None])
def test_an_unreachable_database_and_a_locked_row_are_503(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    agent_id, who = shout.enqueue(Text()).agent_id, client(admin())

    def fail(*args: Any, **kwargs: Any) -> None:
        raise error or ActivityLocked([agent_id], 5.0)

    monkeypatch.setattr("django_agentexec.activity.commands.apply_one", fail)
    with override_settings(DEBUG=True):
        answer = who.post(f"/agents/activities/{agent_id}/cancel/")

    assert answer.status_code == 503
    assert "10.0.0.5" not in str(answer.json())
    assert Activity.objects.get(pk=agent_id).status == Status.QUEUED
