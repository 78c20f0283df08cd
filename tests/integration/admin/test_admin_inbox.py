"""The inbox of approvals: its order, what is assigned to the user, handing over, and rejecting several calls."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
from django.contrib.auth.models import AnonymousUser, User, UserManager
from django.core.exceptions import ValidationError
from django.test import override_settings

from django_agentexec import AlreadyDecided, ApprovalNotFound, InvalidOption, activity, approvals
from django_agentexec.models import Activity, ActivityLog, Approval
from tests.support.admin_pages import DECIDER, INBOX, TENANTS, said, signed_in, staff
from tests.support.approval_rows import waiting

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queue_in_memory")]


def tools(client: Any, **parameters: str) -> list[str]:
    """Return the tools of the cards, first to last."""
    return [card.approval.tool for card in client.get(INBOX, parameters).context["cards"]]


def hand_over(client: Any, approval: Approval, **form: str) -> Any:
    return client.post(f"{INBOX}{approval.pk}/assign/", {"next": INBOX, **form})


def test_the_cards_have_the_chosen_order() -> None:
    for tool, seconds in (("b", 5_000), ("a", None), ("c", 50)):
        waiting({"tool": tool}, seconds=seconds)
    client = signed_in(*DECIDER)

    assert tools(client) == ["c", "b", "a"]
    assert tools(client, order="oldest") == ["b", "a", "c"]
    assert tools(client, order="newest") == ["c", "a", "b"]
    assert tools(client, order="tool") == ["a", "b", "c"]
    assert tools(client, order="unknown") == ["c", "b", "a"]


def test_an_approval_is_handed_over_and_found_under_mine() -> None:
    (first,), (second,) = waiting({"tool": "first"}), waiting({"tool": "second"})
    client, other = signed_in(*DECIDER), staff(*DECIDER, name="jo")

    assert "Assign to me" in client.get(f"{INBOX}{first.pk}/assign/").content.decode()
    answer = hand_over(client, first, name="jo")
    hand_over(client, second, to="me")

    assert (answer["Location"], said(answer)) == (INBOX, ["Assigned to jo."])
    first.refresh_from_db()
    assert first.assigned_to == str(other.pk)
    page = client.get(INBOX).content.decode()
    assert "assigned to jo" in page
    assert "Mine 1" in page
    assert tools(client, tab="mine") == ["second"]
    assert tools(client) == ["first", "second"]
    hand_over(client, second, to="nobody")
    assert tools(client, tab="mine") == []
    assert "Nothing is assigned to you" in client.get(INBOX, {"tab": "mine"}).content.decode()


@pytest.mark.parametrize("name", ["nobody", "viewer", "", "a\x00b", "x" * 400])
def test_only_users_who_may_decide_are_assigned(name: str) -> None:
    (approval,) = waiting()
    staff("view_activity", name="viewer")

    answer = hand_over(signed_in(*DECIDER), approval, name=name)

    assert answer.status_code == 400
    assert "who may decide this" in answer.content.decode()
    approval.refresh_from_db()
    assert approval.assigned_to is None


@pytest.mark.parametrize("problem", [ValueError("no number"), ValidationError("no UUID")])
def test_a_text_that_cannot_be_a_user_name_is_no_server_error(problem: Exception) -> None:
    (approval,) = waiting()

    with patch.object(UserManager, "get_by_natural_key", side_effect=problem):
        assert hand_over(signed_in(*DECIDER), approval, name="jo").status_code == 400


def test_the_log_names_who_handed_over_what_to_whom() -> None:
    (approval,) = waiting({"tool": "send_letter"})
    client, jo = signed_in(*DECIDER), staff(*DECIDER, name="jo")

    hand_over(client, approval, name="jo")
    hand_over(client, approval, name="jo")  # as it is
    approvals.assign(approval.pk, None)
    approvals.assign(approval.pk, str(jo.pk))

    log = ActivityLog.objects.filter(activity=approval.activity)
    lines = list(log.values_list("message", "public_message", "actor"))
    other = "send_letter was handed over to another person."
    assert lines[-3:] == [
        ("send_letter was handed over to jo.", other, str(key_of("maria"))),
        ("send_letter is assigned to nobody in particular.", None, None),
        (f"send_letter was handed over to {jo.pk}.", other, None),
    ]
    row = Activity.objects.get()
    assert (row.latest_log_message, row.waiting_for, row.is_suspended) == (other, "approval", True)
    page = client.get(f"/admin/agentexec/activity/{row.pk}/change/").content.decode()
    assert "send_letter was handed over to jo." in page


@override_settings(AGENTEXEC=TENANTS)
def test_users_of_other_tenants_are_not_assigned() -> None:
    (approval,) = waiting(metadata={"organization_id": "org-1"})
    staff(*DECIDER, name="foreign", first_name="org-2")
    staff(*DECIDER, name="colleague", first_name="org-1")
    client = signed_in(*DECIDER, first_name="org-1")

    assert hand_over(client, approval, name="foreign").status_code == 400
    assert hand_over(client, approval, name="colleague").status_code == 302
    assert hand_over(signed_in(*DECIDER, name="eve", first_name="org-2"), approval, to="me").status_code == 404
    approval.refresh_from_db()
    assert approval.assigned_to == str(key_of("colleague"))


def key_of(name: str) -> int:
    return User.objects.get(username=name).pk


def test_an_assignment_needs_the_permission_and_a_pending_approval() -> None:
    (approval,) = waiting()
    assert hand_over(signed_in("view_activity", name="jo"), approval, to="me").status_code == 403

    approvals.approve(approval.pk)
    answer = hand_over(signed_in(*DECIDER), approval, to="me")

    assert answer["Location"].endswith(f"{approval.activity_id}/change/")
    with pytest.raises(AlreadyDecided):
        approvals.assign(approval.pk, "7")
    approval.refresh_from_db()
    assert approval.assigned_to is None


def test_assignments_in_code() -> None:
    (approval,) = waiting()
    user = staff(*DECIDER)

    assert approvals.assign(approval.pk, user).assigned_to == str(user.pk)
    assert approvals.assign(str(approval.pk), None).assigned_to is None
    for nobody in ("", AnonymousUser()):
        with pytest.raises(InvalidOption, match="'' must be a user"):
            approvals.assign(approval.pk, nobody)
    with pytest.raises(ApprovalNotFound):
        approvals.assign("no-id", user)
    approvals.assign(approval.pk, user)
    approvals.reject(approval.pk, reason="no")
    approval.refresh_from_db()
    assert approval.assigned_to == str(user.pk)


def test_selected_calls_are_rejected_with_one_reason() -> None:
    (first,), (second,), (question,) = waiting(), waiting(), waiting({"kind": "question", "tool": "ask_person"})
    client = signed_in(*DECIDER)
    form = {"selected": [str(first.pk), str(second.pk)], "decision": "reject"}

    page = client.post(INBOX, form).content.decode()
    without = client.post(INBOX, {**form, "confirmed": "yes", "reason": " "})

    assert "Reject 2 calls of send_letter?" in page
    assert without.status_code == 400
    assert "Give a reason to reject" in without.content.decode()
    assert Approval.objects.filter(status="pending").count() == 3

    with activity.acting_as(None):
        approvals.approve(second.pk)
    late = client.post(INBOX, {**form, "confirmed": "yes", "reason": "Not today"})

    assert said(late) == ["1 call was rejected."]
    found = dict(Approval.objects.values_list("pk", "status"))
    assert [found[each.pk] for each in (first, second, question)] == ["rejected", "approved", "pending"]
    assert Approval.objects.get(pk=first.pk).reason == "Not today"


def test_an_unknown_decision_approves_nothing() -> None:
    (approval,) = waiting()
    form = {"selected": [str(approval.pk)], "decision": "rejected", "confirmed": "yes", "reason": "no"}

    assert said(signed_in(*DECIDER).post(INBOX, form)) == ["Choose a decision."]
    approval.refresh_from_db()
    assert approval.is_pending


def test_an_impossible_reason_for_several_calls_is_no_earlier_decision() -> None:
    (first,), (second,) = waiting(), waiting()
    form = {"selected": [str(first.pk), str(second.pk)], "decision": "reject", "confirmed": "yes"}
    client = signed_in(*DECIDER)

    for reason, why in (("no" * 1_001, "at most 2,000 are allowed"), ("a\0b", "without NUL characters")):
        answer = client.post(INBOX, {**form, "reason": reason})

        assert answer.status_code == 400
        assert why in answer.content.decode()
    assert Approval.objects.filter(status="pending").count() == 2


@pytest.mark.parametrize("assignee", ["9" * 30, "\N{ARABIC-INDIC DIGIT ONE}", "maria"])
def test_an_assignee_who_is_no_user_is_shown_as_it_is(assignee: str) -> None:
    (approval,) = waiting()
    approvals.assign(approval.pk, assignee)

    assert f"assigned to {assignee}" in signed_in(*DECIDER).get(INBOX).content.decode()


@override_settings(AGENTEXEC=TENANTS)
def test_users_of_a_tenant_do_not_read_accounts_of_terminals() -> None:
    (approval,) = waiting(metadata={"organization_id": "org-1"})
    approvals.approve(approval.pk, by="terminal:root")
    client = signed_in(*DECIDER, first_name="org-1")

    decided = client.get(INBOX, {"tab": "decided"}).content.decode()
    late = client.post(f"{INBOX}{approval.pk}/decide/", {"decision": "reject", "reason": "no"})

    assert "terminal" in decided
    assert "by terminal" in said(late)[0]
    assert "terminal:root" not in decided + said(late)[0]
