"""Cancel and retry over REST."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from django.test import override_settings

from django_agentexec import activity
from django_agentexec.models import Activity, Status, Ties
from tests.rest import POLICY, admin, client, member, staff
from tests.rows import row, start
from tests.testapp.agents import Text, shout

pytestmark = pytest.mark.django_db


def url(agent_id: object, verb: str) -> str:
    return f"/agents/activities/{agent_id}/{verb}/"


def test_an_activity_is_canceled_and_retried() -> None:
    run, who = shout.enqueue(Text()).agent_id, client(admin())

    canceled = who.post(url(run, "cancel"))
    assert (canceled.status_code, canceled.json()["status"]) == (202, "canceled")
    assert row(run).status == Status.CANCELED

    again = who.post(url(run, "retry"))
    assert (again.status_code, again.json()["status"]) == (202, "queued")
    assert again.json()["agent_id"] == str(run)
    assert row(run).status == Status.QUEUED


def test_a_retry_may_begin_at_a_step_or_from_scratch() -> None:
    run, who = shout.enqueue(Text()).agent_id, client(admin())
    start(run)
    activity.complete(run, result="X")

    unknown = who.post(url(run, "retry") + "?from_step=analysis")
    both = who.post(url(run, "retry") + "?from_step=analysis&from_scratch=true")
    assert [unknown.status_code, both.status_code] == [422, 422]
    assert "has no step 'analysis'" in str(unknown.json())
    assert row(run).status == Status.COMPLETE

    assert who.post(url(run, "retry") + "?from_scratch=true").json()["status"] == "queued"
    assert row(run).result is None


def test_a_refusal_tells_the_reason() -> None:
    complete, queued, who = activity.create("import"), shout.enqueue(Text()).agent_id, client(admin())
    activity.complete(complete)

    answers = {verb: who.post(url(run, verb)) for verb, run in (("cancel", complete), ("retry", queued))}

    assert {verb: answer.status_code for verb, answer in answers.items()} == {"cancel": 409, "retry": 409}
    assert answers["cancel"].json()["reason"] == "already complete"
    assert answers["cancel"].json()["status"] == "complete"
    assert str(complete) in answers["cancel"].json()["detail"]
    assert (answers["retry"].json()["reason"], answers["retry"].json()["status"]) == ("still queued", "queued")


def test_the_retry_of_a_child_points_to_its_parent() -> None:
    parent, child = shout.enqueue(Text()).agent_id, shout.enqueue(Text()).agent_id
    Activity.objects.filter(pk=child).update(parent=parent, spawn_key="/a", ties=Ties.CHILD)
    for one in (child, parent):
        activity.cancel(one)

    answer = client(admin()).post(url(child, "retry"))

    assert (answer.status_code, answer.json()["status"]) == (409, "canceled")
    assert answer.json()["reason"] == "its parent has failed or was canceled; retry the parent"
    assert str(parent) in answer.json()["detail"]


@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_what_does_not_exist_cannot_be_changed(verb: str) -> None:
    assert client(admin()).post(url(uuid4(), verb)).status_code == 404


@pytest.mark.parametrize(("verb", "other"), [("cancel", "retry"), ("retry", "cancel")])
def test_each_verb_needs_its_own_permission(verb: str, other: str) -> None:
    run, who = shout.enqueue(Text()).agent_id, client(staff("one", "view_activity", f"{other}_activity"))
    if verb == "retry":
        activity.cancel(run)

    assert who.post(url(run, verb)).status_code == 403
    assert who.post(url(run, other)).status_code != 403


@override_settings(AGENTEXEC={"POLICY": POLICY})
def test_another_tenants_activity_cannot_be_changed() -> None:
    theirs = shout.enqueue(Text(), metadata={"organization_id": "org-2"}).agent_id
    ours = shout.enqueue(Text(), metadata={"organization_id": "org-1"}).agent_id
    who = client(member("org-1"))

    assert who.post(url(theirs, "cancel")).status_code == 404
    assert who.post(url(ours, "cancel")).status_code == 202
    assert row(theirs).status == Status.QUEUED


def test_reading_changes_nothing() -> None:
    run = UUID(str(shout.enqueue(Text()).agent_id))

    assert client(admin()).get(url(run, "cancel")).status_code == 405
    assert row(run).status == Status.QUEUED
