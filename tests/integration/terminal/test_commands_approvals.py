"""`agentexec approvals`: the list, and decisions by id."""

from __future__ import annotations

import getpass
import json

import pytest

from django_agentexec import activity
from django_agentexec.models import Activity, Approval, Status
from tests.support.approval_rows import waiting
from tests.support.management_commands import Answer, call

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queue_in_memory")]


def approvals(*arguments: str) -> Answer:
    return call("agentexec", "approvals", *arguments)


def test_the_list_shows_what_waits() -> None:
    (approval,) = waiting({"arguments": {"to": "Acme", "copies": 2}}, seconds=3600)

    answer = approvals()

    assert answer.code == 0
    for text in (str(approval.id), "approval", "send_letter", "shout", "to='Acme', copies=2"):
        assert text in answer.out
    assert json.loads(approvals("list", "--json").out)[0]["id"] == str(approval.id)
    assert approvals("--json").out == approvals("list", "--json").out == approvals("--json", "list").out
    assert "No approval matches." in approvals("list", "--tool", "other").err
    assert "No approval matches." in approvals("list", "--status", "void").err


def test_decisions_name_the_account_of_the_terminal() -> None:
    (approval,) = waiting()

    answer = approvals("approve", str(approval.id)[:25], "--scope", "run", "--reason", "Fine.")

    approval.refresh_from_db()
    assert (answer.code, "send_letter: approved" in answer.out) == (0, True)
    assert (approval.status, approval.scope, approval.reason) == ("approved", "run", "Fine.")
    assert approval.decided_by == f"terminal:{getpass.getuser()}"
    assert Activity.objects.get().status == Status.QUEUED


def test_a_rejection_needs_a_reason() -> None:
    (approval,) = waiting()

    assert approvals("reject", str(approval.id)).code != 0
    assert Approval.objects.get().is_pending
    assert approvals("reject", str(approval.id), "--reason", "No.").code == 0
    assert Approval.objects.get().reason == "No."


def test_questions_are_answered() -> None:
    (question,) = waiting({"kind": "question", "tool": "ask_person", "title": "How many?", "choices": [1, 2]})

    assert "How many? (1, 2)" in approvals().out
    assert approvals("answer", str(question.id), "3").code == 2
    assert approvals("answer", str(question.id), "2", "--json").code == 0
    assert Approval.objects.get().answer == 2
    assert f"{question.id} ask_person: answered: 2" in approvals("answer", str(question.id), "1").out


def test_refusals_have_exit_codes() -> None:
    first, second = waiting({}, {"tool": "refund"})
    approvals("approve", str(first.id))

    other = approvals("reject", str(first.id), "--reason", "No.")
    assert (other.code, "yours was not applied" in other.err, "approved" in other.out) == (1, True, True)
    assert approvals("approve", "ffffffff").code == 3
    assert approvals("approve", "x").code == 3
    activity.cancel(second.activity_id)
    void = approvals("approve", str(second.id))
    assert (void.code, "void" in void.err) == (1, True)
