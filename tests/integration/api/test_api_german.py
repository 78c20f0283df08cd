"""The messages of the REST API with `LANGUAGE_CODE = "de"`; names, statuses and reasons stay as they are."""

from __future__ import annotations

import json
from typing import Any

import pytest

from django_agentexec import activity
from tests.support.activity_rows import start
from tests.support.approval_rows import waiting
from tests.support.catalogue import english_in
from tests.support.rest_api import admin, client, outside_task
from tests.testapp.agents import Text, shout

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("queue_in_memory", "german")]

UNKNOWN = "01920000-0000-7000-8000-000000000000"


def text_of(answer: Any, status: int) -> str:
    """Return the body as text; it contains no English message."""
    assert answer.status_code == status, answer.content
    data = answer.json()
    data.pop("reason", None)  # of a conflict: the same in each language
    text = json.dumps(data, ensure_ascii=False)
    assert english_in(text) == set()
    return text


def test_errors_are_german() -> None:
    who, done = client(admin()), shout.enqueue(Text()).agent_id
    base = "/agents/activities/"
    queued = who.get(f"{base}{done}/result/")
    assert "hat kein Ergebnis" in text_of(queued, 409)
    start(done)
    activity.complete(done, result="X")

    assert f"Es gibt keine Aktivität {UNKNOWN}." in text_of(who.get(f"{base}{UNKNOWN}/"), 404)
    assert "Unbekannter Parameter" in text_of(who.get(f"{base}?nonsense=1"), 400)
    assert "kann nicht abgebrochen werden" in text_of(who.post(f"{base}{done}/cancel/"), 409)
    assert "keinen begonnenen Schritt" in text_of(who.post(f"{base}{done}/retry/?from_step=x"), 422)
    assert "Es gibt keinen Task" in text_of(who.post("/agents/tasks/nothing/", data={}, format="json"), 404)


def test_the_errors_of_a_new_activity_are_german() -> None:
    who = client(admin())
    with outside_task() as task:
        address = f"/agents/tasks/{task.name}/"
        broken = who.post(address, data="{", content_type="application/json")
        assert "Fehler beim Lesen des JSON" in text_of(broken, 400)
        text_of(who.post(address, data={"title": ""}, format="json"), 400)
        key = who.post(address, data={"title": "A"}, format="json", HTTP_IDEMPOTENCY_KEY="x" * 300)
        assert "druckbare ASCII-Zeichen" in text_of(key, 400)


def test_the_health_check_is_german() -> None:
    who = client(admin())
    shout.enqueue(Text())

    answer = who.get("/agents/health/")

    assert "Kein aktiver Worker bedient die Warteschlange 'default'." in text_of(answer, answer.status_code)


def test_the_errors_of_changed_arguments_are_german() -> None:
    who, (approval,) = client(admin()), waiting()

    def approve(**arguments: Any) -> str:
        address = f"/agents/approvals/{approval.id}/approve/"
        return text_of(who.post(address, data={"arguments": arguments}, format="json"), 400)

    assert "Geben Sie genau diese an" in approve(cc="Beta")
    assert "ist ein Text, aber 7 ist keiner" in approve(to=7)
