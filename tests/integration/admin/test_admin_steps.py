"""A pipeline in the admin: its steps with their states, and running it again from one of them."""

from __future__ import annotations

from uuid import UUID

import pytest

from django_agentexec import Status
from django_agentexec.models import StepRun
from django_agentexec.testing import drain
from tests.integration.pipelines.test_pipelines import Input, define
from tests.support.activity_rows import row
from tests.support.admin_pages import ALL, page_of, signed_in

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def run() -> UUID:
    """The id of a pipeline that is complete."""
    pipeline = define()
    agent_id = pipeline.enqueue(Input()).agent_id
    drain()
    return agent_id


def test_the_page_shows_each_step(run: UUID) -> None:
    response = signed_in(*ALL).get(page_of(run))

    assert [(step.title, step.state) for step in response.context["steps"]] == [
        ("parallel research", "complete"),
        ("analysis", "complete"),
        ("write", "complete"),
    ]
    assert "flowchart LR" in response.content.decode()
    assert "?from_step=analyze" in response.content.decode()


def test_a_pipeline_is_run_again_from_a_step(run: UUID) -> None:
    who, address = signed_in(*ALL), page_of(run).replace("change/", "retry/") + "?from_step=analyze"
    assert "The step analyze and all after it run again." in who.get(address).content.decode()

    who.post(address, {"post": "yes"})

    assert row(run).status == Status.QUEUED
    assert list(StepRun.objects.filter(activity_id=run).values_list("name", flat=True)) == ["gather_data"]


def test_a_step_that_has_not_run_is_refused(run: UUID) -> None:
    address = page_of(run).replace("change/", "retry/") + "?from_step=nothing"

    response = signed_in(*ALL).post(address, {"post": "yes"}, follow=True)

    assert row(run).status == Status.COMPLETE
    assert "has no step" in response.content.decode()


def test_who_may_not_retry_is_not_offered_it(run: UUID) -> None:
    who = signed_in("view_activity")

    assert "from_step" not in who.get(page_of(run)).content.decode()
    assert who.post(page_of(run).replace("change/", "retry/") + "?from_step=analyze").status_code == 403
    assert row(run).status == Status.COMPLETE
