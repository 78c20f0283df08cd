"""The inbox of approvals in a browser, and the card on the page of an activity."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from django.contrib.auth.models import Permission, User

from django_agentexec import approvals
from django_agentexec.models import Activity, Approval, Status
from tests.support.admin_pages import CHANGE_LIST, DASHBOARD, page_of
from tests.support.approval_rows import waiting

INBOX = "/admin/agentexec/approval/"
PICTURES = os.environ.get("AGENTEXEC_TEST_PICTURES", "")
"""A folder for screenshots, if they are wanted."""
CARDS = "document.querySelectorAll('[data-approval]').length"
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


def test_the_inbox_is_live_and_nothing_moves_below_the_pointer(live_page: Any) -> None:
    first, late, *_ = letters()
    allow_decisions()
    live_page.open(INBOX)
    tab = live_page.tab
    tab.until("document.querySelector('[data-connection]').dataset.state === 'live'")
    tab.evaluate(f"document.querySelector('#ae-r-{late.id}').value = 'A draft'")
    assert tab.evaluate(CARDS) == 4

    (new,) = waiting({"tool": "refund_order", "arguments": {"amount": 5}}, seconds=100)
    tab.until("!document.querySelector('[data-show-new]').hidden")
    assert tab.evaluate(CARDS) == 4
    approvals.reject(first.id, reason="No.")
    tab.until(f"document.querySelector('[data-approval=\"{first.id}\"]').inert")
    picture(tab, "inbox-live")
    tab.click("[data-show-new]")

    assert tab.evaluate(CARDS) == 4
    assert tab.evaluate("document.querySelector('[data-approval]').dataset.approval") == str(new.id)
    assert tab.evaluate(f"document.querySelector('#ae-r-{late.id}').value") == "A draft"


def test_an_empty_inbox_shows_the_first_request_at_once(live_page: Any) -> None:
    allow_decisions()
    live_page.open(INBOX)
    live_page.tab.until("document.querySelector('[data-connection]').dataset.state === 'live'")

    waiting()

    live_page.tab.until(f"{CARDS} === 1")
    assert live_page.tab.text(".ae-count").startswith("1")


def test_the_form_of_changed_arguments_fits(page: Any) -> None:
    first, *_ = letters()
    allow_decisions()
    page.open(INBOX)
    tab = page.tab
    tab.follow(f"a[href*='{first.id}/arguments/']")
    for width, is_phone in ((390, True), (1366, False)):
        tab.resize(width, is_phone=is_phone)
        assert not tab.evaluate(SCROLLS), width
        for scheme in ("light", "dark"):
            tab.prefer(color_scheme=scheme)
            picture(tab, f"arguments-{width}-{scheme}")
    tab.evaluate("document.querySelector('#ae-argument-1').value = 'Changed'")
    tab.follow("button[data-is-main]")

    first.refresh_from_db()
    assert first.changed_arguments == {**first.arguments, "subject": "Changed"}
    assert tab.evaluate("location.pathname") == INBOX


def test_the_dashboard_and_the_list_with_its_filters_fit(page: Any) -> None:
    letters()
    allow_decisions()
    for name, path in (("dashboard", DASHBOARD), ("list", f"{CHANGE_LIST}?min_cost=0&model=large-2")):
        page.open(path)
        page.tab.evaluate("document.querySelectorAll('[data-menu], [data-menu] details').forEach(e => e.open = true)")
        for width, is_phone in ((1366, False), (390, True)):
            page.tab.resize(width, is_phone=is_phone)
            assert not page.tab.evaluate(SCROLLS), (name, width)
            for scheme in ("light", "dark"):
                page.tab.prefer(color_scheme=scheme)
                picture(page.tab, f"{name}-{width}-{scheme}")
    page.open(DASHBOARD)
    assert page.tab.until("document.querySelector('[data-count=needs_approval]').innerText") == "4"
