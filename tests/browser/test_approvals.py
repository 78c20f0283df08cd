"""The inbox of approvals in a browser, and the card on the page of an activity."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from django.contrib.auth.models import Permission, User

from django_agentexec.models import Activity, Approval, Status
from tests.support.admin_pages import page_of
from tests.support.approval_rows import waiting

INBOX = "/admin/agentexec/approval/"
PICTURES = os.environ.get("AGENTEXEC_TEST_PICTURES", "")
"""A folder for screenshots, if they are wanted."""
SCROLLS = "document.documentElement.scrollWidth > document.documentElement.clientWidth"


def allow_decisions() -> None:
    User.objects.get(username="maria").user_permissions.add(Permission.objects.get(codename="decide_approval"))


def letters() -> list[Approval]:
    text = "Dear Ms Smith,\nwe close at 18:00 on Saturdays and have moved your pick-up to 17:30.\nKind regards"
    mails = [{"to": f"customer-{number}@example.com", "subject": "Your pick-up", "text": text} for number in (901, 902)]
    (soon,) = waiting({"arguments": mails[0]}, seconds=500)
    (late,) = waiting({"arguments": mails[1]}, seconds=14_000)
    (refund,) = waiting({"tool": "refund_order", "arguments": {"order_number": 20931, "amount": 48.0, "note": None}})
    (question,) = waiting({"kind": "question", "tool": "ask_person", "title": "Which size?", "choices": ["S", "M"]})
    return [soon, late, refund, question]


def picture(tab: Any, name: str) -> None:
    if PICTURES:
        tab.screenshot(Path(PICTURES) / f"{name}.png")


def test_the_inbox_fits_and_selects_calls_of_one_tool(page: Any) -> None:
    letters()
    allow_decisions()
    page.open(INBOX)
    tab = page.tab

    assert tab.evaluate("document.querySelector('[data-bulk]').hidden")
    tab.click("input[data-tool=send_letter]")
    assert tab.evaluate("document.querySelector('input[data-tool=refund_order]').disabled")
    assert tab.text("[data-selected]").endswith("send_letter")
    for width, is_phone in ((1366, False), (390, True)):
        tab.resize(width, is_phone=is_phone)
        assert not tab.evaluate(SCROLLS), width
        picture(tab, f"inbox-{width}")
    tab.prefer(color_scheme="dark")
    picture(tab, "inbox-390-dark")


def test_a_call_is_approved_on_the_page_of_its_activity(page: Any) -> None:
    (approval,) = waiting()
    allow_decisions()
    page.open(page_of(approval.activity_id))
    for width, is_phone in ((390, True), (1366, False)):
        page.tab.resize(width, is_phone=is_phone)
        assert not page.tab.evaluate(SCROLLS), width
        picture(page.tab, f"detail-{width}")

    page.tab.follow("button[value=approve]")

    approval.refresh_from_db()
    assert (approval.status, Activity.objects.get().status) == ("approved", Status.QUEUED)
    assert "Approved" in page.tab.text(".messagelist")


def test_selected_calls_are_confirmed_and_the_decisions_are_listed(page: Any) -> None:
    letters()
    allow_decisions()
    page.open(INBOX)
    for number in (0, 1):
        page.tab.evaluate(f"document.querySelectorAll('input[data-tool=send_letter]')[{number}].click()")
    page.tab.follow("[data-bulk] button")
    picture(page.tab, "confirm-1280")
    page.tab.follow("form.ae-card button[type=submit]")

    assert Approval.objects.filter(status="approved").count() == 2
    page.open(f"{INBOX}?tab=decided")
    for width, is_phone in ((1366, False), (390, True)):
        page.tab.resize(width, is_phone=is_phone)
        assert not page.tab.evaluate(SCROLLS), width
        picture(page.tab, f"decided-{width}")
