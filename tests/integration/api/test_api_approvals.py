"""Approvals over REST: lists, decisions, refusals, and tenants."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest
from django.core.cache import cache
from django.test import override_settings

from django_agentexec import activity
from django_agentexec.models import Activity, ActivityLog, Approval, Status
from django_agentexec.testing import memory_queue
from tests.support.approval_rows import waiting
from tests.support.rest_api import POLICY, admin, client, member, staff

pytestmark = pytest.mark.django_db

LIST = "/agents/approvals/"


@pytest.fixture(autouse=True)
def queue() -> Iterator[None]:
    cache.clear()
    with memory_queue():
        yield


def url(approval: Approval, verb: str = "") -> str:
    return f"{LIST}{approval.id}/{verb + '/' if verb else ''}"


def test_the_list_has_pending_approvals_first_to_expire_first() -> None:
    (late,) = waiting(seconds=500)
    (soon,) = waiting({"tool": "refund", "arguments": {"amount": 5}}, seconds=50)
    (never,) = waiting()
    who = client(admin())

    page = who.get(LIST, {"status": "pending"}).json()

    assert [item["id"] for item in page["items"]] == [str(each.id) for each in (soon, late, never)]
    assert (page["total"], page["total_is_bounded"], page["page"]) == (3, False, 1)
    item = page["items"][0]
    assert (item["agent_id"], item["agent_type"], item["tool"], item["arguments"], item["on_expiry"]) == (
        str(soon.activity_id),
        "shout",
        "refund",
        {"amount": 5},
        "reject",
    )


def test_the_list_is_filtered() -> None:
    (first,) = waiting()
    (second,) = waiting({"tool": "refund"})
    who = client(admin())
    who.post(url(first, "approve"))

    def ids(**parameters: object) -> list[str]:
        return [item["id"] for item in who.get(LIST, parameters).json()["items"]]

    assert ids(tool="refund") == ids(status="pending") == ids(activity=second.activity_id) == [str(second.id)]
    assert ids(status="approved") == [str(first.id)]
    assert ids(page_size=1, page=2) == [str(first.id)]
    assert who.get(LIST, {"tool_name": "x"}).status_code == 400
    assert who.get(LIST, {"status": "open"}).status_code == 400
    assert who.get(LIST, {"activity": "no id"}).status_code == 400


def test_an_approval_is_read_alone() -> None:
    (approval,) = waiting()

    assert client(admin()).get(url(approval)).json()["id"] == str(approval.id)
    assert client(admin()).get(f"{LIST}{uuid4()}/").status_code == 404
    assert client(admin()).get(f"{LIST}nothing/").status_code == 404


def test_a_call_is_approved_with_changed_arguments() -> None:
    (approval,) = waiting()
    who = client(admin())

    wrong = who.post(url(approval, "approve"), {"arguments": {"name": "Beta"}}, format="json")
    assert (wrong.status_code, "give exactly these" in str(wrong.json())) == (400, True), wrong.json()
    assert who.post(url(approval, "approve"), {"arguments": ["Beta"]}, format="json").status_code == 400
    answer = who.post(url(approval, "approve"), {"arguments": {"to": "Beta"}}, format="json")

    assert (answer.status_code, answer.json()["arguments"]) == (200, {"to": "Acme"}), answer.json()
    assert answer.json()["changed_arguments"] == {"to": "Beta"}
    assert who.post(url(approval, "approve"), {"arguments": {"to": "Beta"}}, format="json").status_code == 200
    other = who.post(url(approval, "approve"))
    assert (other.status_code, other.json()["approval"]["changed_arguments"]) == (409, {"to": "Beta"})
    assert "approved before with other arguments" in other.json()["detail"]
    rejected = who.post(url(approval, "reject"))
    assert rejected.json()["detail"] == "Another decision was made before; yours was not applied."


def test_approve_resumes_the_activity_and_names_the_user() -> None:
    (approval,) = waiting()
    user = admin()

    answer = client(user).post(url(approval, "approve"), {"reason": "Fine.", "scope": "run"}, format="json")

    assert (answer.status_code, answer.json()["status"], answer.json()["decided_by"]) == (200, "approved", str(user.pk))
    assert (answer.json()["scope"], answer.json()["reason"]) == ("run", "Fine.")
    assert Activity.objects.get().status == Status.QUEUED
    assert ActivityLog.objects.get(message__contains="was approved").actor == str(user.pk)


def test_the_same_decision_is_answered_with_200_and_another_with_409() -> None:
    (approval,) = waiting()
    who = client(admin())
    assert who.post(url(approval, "reject"), {"reason": "No."}, format="json").status_code == 200

    again = who.post(url(approval, "reject"))
    other = who.post(url(approval, "approve"))

    assert (again.status_code, again.json()["reason"]) == (200, "No.")
    assert other.status_code == 409
    assert other.json()["detail"] == "Another decision was made before; yours was not applied."
    assert (other.json()["approval"]["status"], other.json()["approval"]["reason"]) == ("rejected", "No.")


def test_a_void_approval_is_gone() -> None:
    (approval,) = waiting()
    activity.cancel(approval.activity_id)

    answer = client(admin()).post(url(approval, "approve"))

    assert (answer.status_code, "no longer waits" in answer.json()["detail"]) == (410, True)


def test_questions_are_answered() -> None:
    (question,) = waiting({"kind": "question", "tool": "ask_person", "title": "Size?", "choices": ["S", "M"]})
    who = client(admin())

    assert Activity.objects.get().waiting_for == "answer"
    assert who.post(url(question, "approve")).status_code == 400
    assert who.post(url(question, "answer"), {"answer": "XL"}, format="json").status_code == 400
    assert who.post(url(question, "answer"), {}, format="json").status_code == 400
    answer = who.post(url(question, "answer"), {"answer": "M"}, format="json")
    assert (answer.status_code, answer.json()["answer"]) == (200, "M")
    assert who.post(url(question, "answer"), {"answer": "S"}, format="json").status_code == 409


@pytest.mark.parametrize("body", [{"reasons": "x"}, {"scope": "always"}, {"reason": 5}, {"reason": "x" * 2001}])
def test_an_invalid_body_decides_nothing(body: dict[str, object]) -> None:
    (approval,) = waiting()

    assert client(admin()).post(url(approval, "approve"), body, format="json").status_code == 400
    assert Approval.objects.get().is_pending


def test_decisions_need_their_permission() -> None:
    (approval,) = waiting()
    viewer, decider = staff("viewer", "view_activity"), staff("decider", "view_activity", "decide_approval")

    assert client().get(LIST).status_code == 403
    assert client(viewer).get(url(approval)).status_code == 200
    assert client(viewer).post(url(approval, "approve")).status_code == 403
    assert client(decider).post(url(approval, "approve")).status_code == 200


@override_settings(AGENTEXEC={"POLICY": POLICY})
def test_approvals_of_other_tenants_do_not_exist() -> None:
    (approval,) = waiting(metadata={"organization_id": "a"})
    own, foreign = client(member("a")), client(member("b"))

    assert foreign.get(LIST).json()["items"] == []
    assert foreign.get(url(approval)).status_code == 404
    for verb in ("approve", "reject", "answer"):
        body = {"answer": "x"} if verb == "answer" else {}
        assert foreign.post(url(approval, verb), body, format="json").status_code == 404
    assert Approval.objects.get().is_pending
    assert own.post(url(approval, "approve")).status_code == 200


@override_settings(AGENTEXEC={"API_CHANGE_RATE": "1/minute"})
def test_decisions_share_the_change_rate() -> None:
    first, second = waiting({}, {})
    who = client(admin())

    assert who.post(url(first, "approve")).status_code == 200
    assert who.post(url(second, "approve")).status_code == 429


def test_activities_show_what_they_wait_for() -> None:
    (approval,) = waiting()
    waiting({"kind": "question", "tool": "ask_person"})
    who = client(admin())

    found = who.get("/agents/activities/", {"waiting_for": "approval"}).json()["items"]

    assert [(item["agent_id"], item["waiting_for"]) for item in found] == [(str(approval.activity_id), "approval")]
    assert who.get(f"/agents/activities/{approval.activity_id}/").json()["waiting_for"] == "approval"
    assert who.get("/agents/activities/", {"waiting_for": "rain"}).status_code == 400


def test_metrics_count_what_waits() -> None:
    waiting()

    text = client(admin()).get("/agents/metrics").content.decode()

    assert 'agentexec_suspended_rows{reason="approval"} 1.0' in text
    assert 'agentexec_suspended_rows{reason="answer"} 0.0' in text
