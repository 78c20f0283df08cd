"""The example's letter, which is sent once a person has approved it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from django_agentexec import Status, approvals
from django_agentexec.models import Activity, Approval
from django_agentexec.testing import drain, memory_queue
from example_project.documents import agents as example
from example_project.documents.management.commands.demo import Command
from example_project.documents.offline import OfflineModel
from example_project.documents.shelf import Shelf
from example_project.documents.start import write_letter

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, settings: Any, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(example, "build_model", lambda: OfflineModel(pause=(0, 0)))
    settings.MEDIA_ROOT = tmp_path
    with memory_queue():
        yield


def asked() -> Approval:
    shelf = Shelf("demo")
    write_letter("demo", shelf.get("commercial-lease.txt"), "the landlord")
    drain()
    return Approval.objects.get()


def letters(folder: Path) -> list[str]:
    return [path.read_text() for path in (folder / "letters").rglob("*.txt")]


def test_the_letter_is_sent_once_it_is_approved(tmp_path: Path) -> None:
    approval = asked()
    assert (approval.tool, approval.arguments["recipient"], letters(tmp_path)) == ("send_letter", "the landlord", [])

    approvals.approve(approval.id)
    drain()

    row = Activity.objects.get()
    assert (row.status, row.result["headline"]) == (Status.COMPLETE, "The letter to the landlord was sent."), row.error
    (letter,) = letters(tmp_path)
    assert letter.startswith("To: the landlord\nSubject: Contact for ")


def test_a_rejected_letter_is_not_sent_and_the_agent_reports_the_reason(tmp_path: Path) -> None:
    approvals.reject(asked().id, reason="Call them.")
    drain()

    row = Activity.objects.get()
    assert (row.status, row.result["was_sent"], letters(tmp_path)) == (Status.COMPLETE, False, [])
    assert "Call them." in row.result["headline"]


def test_the_demo_approves_the_letter_itself_where_nobody_watches() -> None:
    approval = asked()

    Command(stdout=StringIO())._approve([Activity.objects.get()])

    approval.refresh_from_db()
    assert (approval.status, approval.decided_by) == ("approved", "demo --once")


def test_visitors_decide_on_the_page_of_their_run(settings: Any) -> None:
    settings.ROOT_URLCONF = "example_project.urls"
    settings.AGENTEXEC = {"POLICY": "example_project.documents.policy.VisitorPolicy"}
    approval = asked()
    owner, stranger = Client(), Client()
    owner.force_login(User.objects.create_user("demo"))
    stranger.force_login(User.objects.create_user("stranger"))
    address = f"/approvals/{approval.id}/"

    assert stranger.post(address, {"decision": "approve"}).status_code == 404
    assert owner.post(address, {"decision": "approve"}).status_code == 302

    approval.refresh_from_db()
    assert (approval.status, re.fullmatch(r"\d+", approval.decided_by or "") is not None) == ("approved", True)
