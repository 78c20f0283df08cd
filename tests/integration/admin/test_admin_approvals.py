"""The inbox of approvals in the admin, and the card on the page of an activity."""

from __future__ import annotations

from typing import Any
from unittest import mock
from uuid import uuid4

import pytest
from django.test import override_settings

from django_agentexec import AlreadyDecided, activity, approvals
from django_agentexec.models import Activity, ActivityLog, Approval, Status
from tests.support.admin_pages import CHANGE_LIST, DECIDER, INBOX, TENANTS, listed, page_of, said, signed_in
from tests.support.approval_rows import waiting

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queue_in_memory")]


def decide(client: object, approval: Approval, **form: str) -> object:
    return client.post(f"{INBOX}{approval.id}/decide/", {"next": INBOX, **form}, follow=True)  # type: ignore[attr-defined]


def test_the_inbox_shows_readable_arguments_and_the_expiry() -> None:
    letter = "Dear <b>Acme</b>,\n" + "please pay. " * 60
    waiting({"arguments": {"to_address": "acme@example.com", "text": letter, "urgent": True}}, seconds=300)

    page = signed_in(*DECIDER).get(INBOX).content.decode()

    for shown in (
        "Run send_letter?", "<dt>To address</dt>", "acme@example.com", "Dear &lt;b&gt;Acme&lt;/b&gt;",
        "please pay. " * 59, "auto-reject", "Soon", 'value="approve"', 'value="reject"', "Waiting 1",
    ):  # fmt: skip
        assert shown in page
    assert "<b>Acme</b>" not in page


def test_text_cannot_look_different_from_what_is_approved() -> None:
    """A model, or a document that it has read, may turn the direction of writing around."""
    hidden = "to \u202emoc.elpmaxe@emca"
    waiting(
        {"arguments": {hidden: hidden, "list": [hidden]}}, {"kind": "question", "tool": "ask_person", "title": hidden}
    )

    page = signed_in(*DECIDER).get(INBOX).content.decode()

    assert "\u202e" not in page
    assert page.count("\\u202emoc.elpmaxe@emca") >= 4


def test_the_first_to_expire_comes_first() -> None:
    waiting({"tool": "late"}, seconds=5_000)
    waiting({"tool": "soon"}, seconds=50)
    waiting({"tool": "never"})

    page = signed_in(*DECIDER).get(INBOX).content.decode()

    assert page.index("Run soon?") < page.index("Run late?") < page.index("Run never?")


def test_an_approval_needs_no_reason_and_a_rejection_does() -> None:
    first, second = waiting({}, {"tool": "refund"})
    client = signed_in(*DECIDER)

    assert "Approved: send_letter" in decide(client, first, decision="approve").content.decode()
    assert "Give a reason" in said(decide(client, second, decision="reject", reason=" "))[0]
    second.refresh_from_db()
    assert second.is_pending
    decide(client, second, decision="reject", reason="Not today.")

    second.refresh_from_db()
    assert (second.status, second.reason, Activity.objects.get().status) == ("rejected", "Not today.", Status.QUEUED)
    assert ActivityLog.objects.get(message__contains="was approved").actor == second.decided_by


def test_a_decision_that_comes_too_late_names_the_other() -> None:
    (approval,) = waiting()
    approvals.reject(approval.id, by="support-2", reason="No.")

    (text,) = said(decide(signed_in(*DECIDER), approval, decision="approve"))

    assert text.startswith("Rejected by support-2")
    assert text.endswith("Your decision was not applied.")


def test_a_void_approval_is_explained() -> None:
    (approval,) = waiting()
    activity.cancel(approval.activity_id)

    (text,) = said(decide(signed_in(*DECIDER), approval, decision="approve"))

    assert "no longer waits" in text


def test_questions_are_answered_in_text_or_by_choice() -> None:
    (free,) = waiting({"kind": "question", "tool": "ask_person", "title": "Which address?"})
    (choice,) = waiting({"kind": "question", "tool": "ask_person", "title": "Which size?", "choices": [1, 2]})
    client = signed_in(*DECIDER)

    page = client.get(INBOX).content.decode()
    assert "Which address?" in page
    assert 'type="radio"' in page
    assert "Give an answer" in said(decide(client, free, decision="answer", answer=" "))[0]
    decide(client, free, decision="answer", answer="Main Street 1")
    decide(client, choice, decision="answer", answer="2")

    free.refresh_from_db()
    choice.refresh_from_db()
    assert (free.answer, choice.answer) == ("Main Street 1", 2)


def test_selected_calls_of_one_tool_are_approved_after_a_confirmation() -> None:
    chosen = [waiting({"arguments": {"to": name}})[0] for name in ("Acme", "Beta")]
    (other,) = waiting({"tool": "refund"})
    client = signed_in(*DECIDER)
    ids = [str(each.id) for each in chosen]

    mixed = client.post(INBOX, {"selected": [*ids, str(other.id)]}, follow=True)
    asked = client.post(INBOX, {"selected": ids})
    assert "one tool only" in said(mixed)[0]
    assert "Approve 2 calls of send_letter?" in asked.content.decode()
    assert "Beta" in asked.content.decode()
    assert Approval.objects.pending().count() == 3
    done = client.post(INBOX, {"selected": ids, "confirmed": "yes", "reason": "Checked."}, follow=True)

    assert said(done) == ["2 calls were approved."]
    assert list(Approval.objects.pending()) == [other]
    assert set(Approval.objects.filter(status="approved").values_list("reason", flat=True)) == {"Checked."}


# In the order in which PostgreSQL returns the keys of a JSON object.
LETTER = {"to": "Acme", "tags": ["a"], "text": "Dear Acme,\r\nplease pay.", "copies": 2, "urgent": None}
FORM = {"argument-0": "Beta", "argument-1": '["a"]', "argument-2": "Dear Acme,\r\nplease pay.", "argument-3": "3"}


def change(client: Any, approval: Approval, **form: str) -> Any:
    return client.post(f"{INBOX}{approval.id}/arguments/", {"next": INBOX, **form})


def test_a_call_is_approved_with_changed_arguments() -> None:
    (approval,) = waiting({"arguments": LETTER})
    client = signed_in(*DECIDER)
    assert f"{INBOX}{approval.id}/arguments/" in client.get(INBOX).content.decode()
    form = client.get(f"{INBOX}{approval.id}/arguments/").content.decode()
    assert "Dear Acme," in form
    assert ">\n2</textarea>" in form

    response = change(client, approval, **FORM, reason="Two were meant.")

    assert (response.status_code, response["Location"]) == (302, INBOX)
    approval.refresh_from_db()
    # Line ends that the form has changed, and not the person, are as they were.
    assert approval.changed_arguments == {**LETTER, "to": "Beta", "copies": 3}
    assert (approval.status, approval.reason, approval.decided_by is not None) == ("approved", "Two were meant.", True)
    decided = client.get(f"{INBOX}?tab=decided").content.decode()
    assert "Approved with changes" in decided
    assert "To: Beta" in decided


@pytest.mark.parametrize(
    ("form", "problem"), [({"argument-3": "three"}, "not valid JSON"), ({"argument-3": "NaN"}, "not valid JSON"),
                          ({"argument-3": "[3]"}, "is a number, but [3] is not")]
)  # fmt: skip
def test_arguments_that_are_wrong_stay_in_the_form(form: dict[str, str], problem: str) -> None:
    (approval,) = waiting({"arguments": LETTER})

    response = change(signed_in(*DECIDER), approval, **{**FORM, **form})

    assert response.status_code == 400
    page = response.content.decode()
    assert problem in page
    assert ">\nBeta</textarea>" in page
    approval.refresh_from_db()
    assert approval.is_pending


def test_only_pending_calls_of_visible_activities_have_the_form() -> None:
    client = signed_in(*DECIDER)
    (question,) = waiting({"kind": "question"})
    (decided,) = waiting()
    approvals.reject(decided.id)
    for each in (question, decided):
        assert client.get(f"{INBOX}{each.id}/arguments/").status_code == 302
        assert change(client, each, **{"argument-0": "Beta"}).status_code == 302
    (pending,) = waiting(metadata={"organization_id": "org-2"})
    assert signed_in("view_activity", name="viewer").get(f"{INBOX}{pending.id}/arguments/").status_code == 403
    with override_settings(AGENTEXEC=TENANTS):
        stranger = signed_in(*DECIDER, name="stranger", first_name="org-1")
        assert stranger.get(f"{INBOX}{pending.id}/arguments/").status_code == 404
        assert change(stranger, pending, **{"argument-0": "Beta"}).status_code == 404
    assert not Approval.objects.filter(changed_arguments__isnull=False).exists()


def test_a_decision_that_comes_before_the_form_is_named() -> None:
    (approval,) = waiting()
    client = signed_in(*DECIDER)
    approvals.reject(approval.id)
    Approval.objects.filter(pk=approval.pk).update(status="pending")  # as the form has read it
    with mock.patch.object(approvals, "approve", side_effect=AlreadyDecided(approval)):
        response = change(client, approval, **{"argument-0": "Beta"})
    assert response.status_code == 302
    assert any("was not applied" in text for text in said(response))


def test_decided_and_expired_ones_have_tabs() -> None:
    first, second = waiting({"tool": "one"}, {"tool": "two"})
    approvals.approve(first.id, by="shift-lead", reason="Fine.")
    activity.cancel(second.activity_id)
    client = signed_in(*DECIDER)

    decided, expired = (client.get(INBOX, {"tab": tab}).content.decode() for tab in ("decided", "expired"))

    assert all(text in decided for text in ("Run one?", "Approved", "shift-lead", "Fine."))
    assert "Run two?" not in decided
    assert "Run two?" in expired
    assert "Void" in expired
    assert "No approvals are waiting" in client.get(INBOX).content.decode()


def test_the_page_of_an_activity_begins_with_the_card() -> None:
    (approval,) = waiting()

    page = signed_in(*DECIDER).get(page_of(approval.activity_id)).content.decode()

    assert page.index("Run send_letter?") < page.index("ae-summary")
    assert "Needs approval" in page
    assert f"{approval.id}/decide/" in page


def test_the_list_has_a_view_of_what_needs_a_decision() -> None:
    (approval,) = waiting()
    activity.create("import")
    client = signed_in(*DECIDER)

    page = client.get(CHANGE_LIST, {"waiting_for": "decision"}).content.decode()

    assert listed(client, waiting_for="decision") == [approval.activity_id]
    assert 'data-status="approval"' in page
    assert '<span class="ae-count">1' in client.get(CHANGE_LIST).content.decode()


def test_decisions_need_their_permission() -> None:
    (approval,) = waiting()
    viewer = signed_in("view_activity")

    page = viewer.get(INBOX).content.decode()
    assert "Run send_letter?" in page
    assert "/decide/" not in page
    assert viewer.post(f"{INBOX}{approval.id}/decide/", {"decision": "approve"}).status_code == 403
    viewer.post(INBOX, {"selected": [str(approval.id)], "confirmed": "yes"})
    assert Approval.objects.get().is_pending
    assert signed_in("cancel_activity", name="nobody").get(INBOX).status_code == 403


@override_settings(AGENTEXEC=TENANTS)
def test_approvals_of_other_tenants_do_not_exist() -> None:
    (approval,) = waiting(metadata={"organization_id": "a"})
    client = signed_in(*DECIDER, first_name="b")

    assert "send_letter" not in client.get(INBOX).content.decode()
    assert client.post(f"{INBOX}{approval.id}/decide/", {"decision": "approve"}).status_code == 404
    client.post(INBOX, {"selected": [str(approval.id)], "confirmed": "yes"})
    assert Approval.objects.get().is_pending
    assert client.get(f"{INBOX}{uuid4()}/change/").status_code == 404
    assert signed_in(*DECIDER, first_name="a", name="own").get(f"{INBOX}{approval.id}/change/").status_code == 302


def test_a_foreign_address_is_not_followed() -> None:
    (approval,) = waiting()

    answer = signed_in(*DECIDER).post(
        f"{INBOX}{approval.id}/decide/", {"decision": "approve", "next": "https://evil.example/"}
    )

    assert answer["Location"] == INBOX


def test_the_pages_contain_no_inline_styles_or_scripts() -> None:
    waiting()

    page = signed_in(*DECIDER).get(INBOX).content.decode()
    main = page[page.index('id="content-main"') :]

    assert [text for text in ("style=", "onclick", "<script>") if text in main] == []
