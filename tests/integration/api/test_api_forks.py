"""Forks over REST: a new activity that keeps the calls before a point."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest
from agents.testing import ScriptedModel
from django.test import override_settings
from pydantic import BaseModel, ConfigDict

from django_agentexec import activity, task
from django_agentexec.models import Activity, AgentCall, CallKind, Status
from django_agentexec.tasks import registry
from django_agentexec.testing import drain
from tests.support.recorded_calls import DONE, Empty, call, clerk, run, say
from tests.support.rest_api import POLICY, admin, client, member, staff

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("durable_tasks")]


def url(agent_id: UUID) -> str:
    return f"/agents/activities/{agent_id}/fork/"


def checked(*, api: bool = True) -> Activity:
    """Return an activity that has looked a name up and answered; its fork answers differently."""
    scripted = ScriptedModel([[call("look_up", "1", name="Acme")], say("Fine."), say("Changed.")])
    agent_id = clerk(scripted, api=api).enqueue(Empty(), metadata={"organization_id": "org-1"}).agent_id
    drain()
    return Activity.objects.get(pk=agent_id)


def last_answer(row: Activity) -> str:
    return str(AgentCall.objects.get(activity=row, kind=CallKind.MODEL, ordinal=1).id)


def test_a_fork_makes_the_call_and_all_later_ones_again() -> None:
    row = checked()

    answer: Any = client(admin()).post(url(row.agent_id), {"before": last_answer(row)}, format="json")

    assert answer.status_code == 202, answer.json()
    body = answer.json()
    assert (body["status"], answer["Location"]) == ("queued", f"/agents/activities/{body['agent_id']}/")
    drain()
    fork = Activity.objects.get(pk=body["agent_id"])
    assert (fork.status, fork.result, DONE["Acme"]) == (Status.COMPLETE, "Changed.", 1)
    assert (fork.metadata, fork.enqueued_by) == (row.metadata, str(answer.wsgi_request.user.pk))


def test_impossible_forks_are_refused_with_the_reason() -> None:
    row, who = checked(), client(admin())

    def post(agent_id: UUID, body: Any) -> int:
        return int(who.post(url(agent_id), body, format="json").status_code)

    assert post(row.agent_id, {"before": str(uuid4())}) == 422
    assert [post(row.agent_id, body) for body in ({}, {"before": "x"}, {"before": None}, {"after": "x"})] == [400] * 4
    assert post(uuid4(), {"before": last_answer(row)}) == 404
    assert who.post(f"{url(row.agent_id)}?x=1", {"before": last_answer(row)}, format="json").status_code == 400
    driven = activity.create("clerk", metadata={})
    made = AgentCall.objects.create(activity_id=driven, kind=CallKind.MODEL)
    Activity.objects.filter(pk=driven).update(context={})
    assert post(driven, {"before": str(made.id)}) == 409
    Activity.objects.filter(pk=row.pk).update(agent_type="gone")
    assert post(row.agent_id, {"before": last_answer(row)}) == 403
    assert Activity.objects.count() == 2


@override_settings(AGENTEXEC={"POLICY": POLICY})
def test_a_fork_stays_within_the_tenant_and_needs_the_permission_to_enqueue() -> None:
    row = checked()
    body = {"before": last_answer(row)}

    assert client(member("org-2")).post(url(row.agent_id), body, format="json").status_code == 404
    assert client().post(url(row.agent_id), body, format="json").status_code in (401, 403)
    own: Any = client(member("org-1")).post(url(row.agent_id), body, format="json")
    assert own.status_code == 202, own.json()
    assert Activity.objects.get(pk=own.json()["agent_id"]).metadata == {"organization_id": "org-1"}


def test_viewers_and_tasks_that_are_not_open_to_rest_are_refused() -> None:
    row = checked(api=False)
    body = {"before": last_answer(row)}

    assert client(staff("viewer", "view_activity")).post(url(row.agent_id), body, format="json").status_code == 403
    with override_settings(AGENTEXEC={"POLICY": POLICY}):
        assert client(member("org-1")).post(url(row.agent_id), body, format="json").status_code == 403


def test_authorize_of_the_task_decides_about_a_fork() -> None:
    scripted = ScriptedModel([say("Fine.")])
    clerk(scripted, api=True, authorize=lambda user, context, metadata: False).enqueue(Empty())
    drain()
    row = Activity.objects.get()
    made = AgentCall.objects.filter(activity=row, kind=CallKind.MODEL).get()

    assert client(admin()).post(url(row.agent_id), {"before": str(made.id)}, format="json").status_code == 403


@override_settings(AGENTEXEC={"API_CHANGE_RATE": "1/min"})
def test_forks_count_towards_the_allowance_of_changes() -> None:
    row = run(ScriptedModel([say("Fine.")]))
    who = client(admin())

    assert who.post(url(row.agent_id), {"before": str(uuid4())}, format="json").status_code == 422
    assert who.post(url(row.agent_id), {"before": str(uuid4())}, format="json").status_code == 429


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")

    number: int


def test_a_context_that_no_longer_fits_is_refused_without_values_and_internals() -> None:
    row = checked()
    body = {"before": last_answer(row)}
    Activity.objects.filter(pk=row.pk).update(context={"number": "hunter2", "other": 1})
    registry.unregister("clerk")
    task("clerk", api=True)(of_closed)

    answer = client(admin()).post(url(row.agent_id), body, format="json")

    assert answer.status_code == 422
    assert answer.json()["detail"] == "The context does not fit task 'clerk'."
    assert sorted(answer.json()["context"]) == ["number", "other"]
    text = answer.content.decode()
    for part in ("hunter2", "pydantic", "Closed", "input_value"):
        assert part not in text, part


def of_closed(agent_id: UUID, context: Closed) -> None:
    """Do nothing."""
