"""Contexts that an attacker sends over REST: values that Python's types cannot hold, and very many errors."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.http import HttpResponse
from django.test import override_settings
from pydantic import BaseModel

from django_agentexec import InvalidContext, activity, task
from django_agentexec.models import Activity
from django_agentexec.tasks import AnyTask
from django_agentexec.tasks.context_input import MAX_PROBLEMS
from django_agentexec.terminal.enqueue import parse_context
from tests.support.rest_api import admin, client

pytestmark = pytest.mark.django_db

URL = "/agents/tasks/hostile/"
TOO_LONG = '{"duration": "-P999999999DT23H"}'  # Pydantic raises OverflowError for it
MORE = "There are more errors; only the first are listed."


class Part(BaseModel):
    size: int


class Hostile(BaseModel):
    duration: timedelta = timedelta()
    parts: list[Part] = []


@pytest.fixture(autouse=True)
def hostile() -> AnyTask:
    @task("hostile", api=True)
    def run(agent_id: UUID, context: Hostile) -> None: ...

    return run


def post(body: str, url: str = URL) -> HttpResponse:
    response: Any = client(admin()).post(url, body, content_type="application/json")
    return response  # type: ignore[no-any-return]


def test_an_exception_of_the_validation_is_a_400() -> None:
    answer = post(TOO_LONG)

    assert answer.status_code == 400
    assert json.loads(answer.content) == {"detail": "The context of task 'hostile' cannot be read: OverflowError"}
    assert not Activity.objects.exists()


def test_the_same_in_a_retry_is_a_400(hostile: AnyTask) -> None:
    run = hostile.enqueue(Hostile()).agent_id
    activity.cancel(run)

    assert post(f'{{"context": {TOO_LONG}}}', f"/agents/activities/{run}/retry/").status_code == 400
    assert Activity.objects.get().status == "canceled"


@pytest.mark.parametrize("field", [{}, {"size": "x"}, {"size": 1, "other": 1}, 1], ids=str)
def test_of_very_many_errors_the_first_are_reported(field: object) -> None:
    answer = json.loads(post(json.dumps({"parts": [field] * (MAX_PROBLEMS + 1)})).content)

    assert len(answer["parts"]) == MAX_PROBLEMS
    assert answer["non_field_errors"] == [MORE]


def test_as_many_errors_as_are_reported_are_all() -> None:
    answer = json.loads(post(json.dumps({"parts": [{}] * MAX_PROBLEMS})).content)

    assert len(answer["parts"]) == MAX_PROBLEMS
    assert "non_field_errors" not in answer


def test_the_terminal_reports_the_first_errors(hostile: AnyTask) -> None:
    with pytest.raises(InvalidContext) as caught:
        parse_context(hostile, json.dumps({"parts": [{}] * (MAX_PROBLEMS + 5)}))

    assert str(caught.value).count("Field required") == MAX_PROBLEMS
    assert str(caught.value).endswith(f"  context: {MORE}")


@override_settings(AGENTEXEC={"MAX_CONTEXT_BYTES": 200_000})
def test_an_answer_is_not_much_larger_than_its_request() -> None:
    body = json.dumps({"parts": [1] * 50_000})

    assert len(post(body).content) < len(body)
