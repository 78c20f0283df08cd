"""Cancel and retry over REST."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from django.test import override_settings

from django_agentexec import Status, activity
from django_agentexec.models import Activity, HookFlag
from tests.support.activity_rows import row, start
from tests.support.admin_pages import ALL
from tests.support.rest_api import POLICY, admin, client, member, outside_task, staff
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


def test_a_refusal_contains_the_reason() -> None:
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
    Activity.objects.filter(pk=child).update(parent=parent, spawn_key="/a", hook_flags=HookFlag.CHILD)
    for one in (child, parent):
        activity.cancel(one)

    answer = client(admin()).post(url(child, "retry"))

    assert (answer.status_code, answer.json()["status"]) == (409, "canceled")
    assert answer.json()["reason"] == "its parent has failed or was canceled; retry the parent"
    assert str(parent) in answer.json()["detail"]


@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_an_unknown_activity_cannot_be_changed(verb: str) -> None:
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


@pytest.mark.usefixtures("few_changes")
def test_enqueue_retry_and_cancel_share_one_allowance() -> None:
    run, who = shout.enqueue(Text()).agent_id, client(admin())

    with outside_task():
        codes = [
            who.post(url(run, "cancel")).status_code,
            who.post(url(run, "retry")).status_code,
            who.post("/agents/tasks/read_title/", {"title": "x"}, format="json").status_code,
            who.post(url(run, "cancel")).status_code,
            who.post("/agents/tasks/read_title/", {"title": "x"}, format="json").status_code,
        ]

    assert codes == [202, 202, 202, 429, 429]
    assert who.get(f"/agents/activities/{run}/").json()["status"] == "queued"
    assert client(staff("other", *ALL)).post(url(run, "cancel")).status_code == 202


@pytest.mark.usefixtures("few_changes")
def test_refused_changes_count_towards_the_allowance() -> None:
    who = client(admin())

    assert [who.post(url(uuid4(), "retry")).status_code for _ in range(4)] == [404, 404, 404, 429]


@override_settings(AGENTEXEC={"API_CHANGE_RATE": ""})
def test_without_a_rate_there_is_no_limit() -> None:
    who = client(admin())

    assert {who.post(url(uuid4(), "retry")).status_code for _ in range(130)} == {404}


def test_reading_changes_nothing() -> None:
    run = UUID(str(shout.enqueue(Text()).agent_id))

    assert client(admin()).get(url(run, "cancel")).status_code == 405
    assert row(run).status == Status.QUEUED
