"""The trace on the page of an activity: rows open, load their content, and follow the run."""

from __future__ import annotations

import os
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

from django.utils import timezone

from django_agentexec import activity
from django_agentexec.models import Activity, CallKind, CallState
from tests.browser.conftest import Page
from tests.support.activity_rows import start
from tests.support.recorded_calls import add_call, begin_call, finish_call
from tests.testapp.agents import Text, shout


def running() -> Activity:
    """Return an activity with calls of each kind."""
    agent_id = shout.enqueue(Text(text="x")).agent_id
    row = start(agent_id, 2)
    since = timezone.now() - timedelta(seconds=40)

    def at(seconds: float) -> dict[str, object]:
        return {"since": since + timedelta(seconds=seconds)}

    add_call(row, CallKind.AGENT, agent="Resolver", state=CallState.STARTED, arguments="Answer it.", **at(0))
    add_call(
        row,
        CallKind.MODEL,
        name="large-2",
        agent="Resolver",
        fence=1,
        cost=Decimal("0.014"),
        input_tokens=3900,
        **at(0),
    )
    add_call(
        row,
        CallKind.TOOL,
        name="find_order",
        call_id="1",
        fence=1,
        arguments={"order_id": 20931},
        output="2 payments of €48.00, 1 delivery",
        **at(1),
    )
    add_call(
        row,
        CallKind.MODEL,
        name="large-2",
        agent="Resolver",
        ordinal=1,
        seconds=6.2,
        cost=Decimal("0.016"),
        input_tokens=4400,
        has_changed=True,
        **at(5),
    )
    add_call(
        row,
        CallKind.TOOL,
        name="previous_tickets",
        ordinal=1,
        call_id="2",
        seconds=2.1,
        state=CallState.FAILED,
        error="TimeoutError: help-desk search timed out after 2 s",
        arguments={"customer_id": 881},
        **at(11),
    )
    add_call(row, CallKind.TOOL, name="draft_reply", ordinal=1, call_id="3", seconds=20, **at(14))
    add_call(row, CallKind.AGENT, path="/1:3", agent="Drafter", seconds=20, **at(14))
    add_call(
        row,
        CallKind.MODEL,
        path="/1:3",
        name="small-2",
        agent="Drafter",
        seconds=4.1,
        cost=Decimal("0.0004"),
        input_tokens=2600,
        **at(14),
    )
    return row


def test_rows_load_their_content_and_follow_the_run(page: Page) -> None:
    row = running()
    page.open(f"/admin/agentexec/activity/{row.pk}/change/")
    page.tab.until("document.querySelectorAll('[data-call]').length === 8")

    find = "[...document.querySelectorAll('[data-kind=tool]')].find(row => row.textContent.includes('find_order'))"
    page.tab.evaluate(f"{find}.open = true")
    page.tab.until("document.querySelector('[data-trace]').textContent.includes('2 payments of')")
    if folder := os.environ.get("TRACE_PICTURES"):
        for width, scheme in ((1366, "light"), (390, "dark"), (1366, "dark"), (390, "light")):
            page.tab.prefer(color_scheme=scheme)
            page.tab.resize(width)
            page.tab.screenshot(Path(folder) / f"trace-{width}-{scheme}.png")

    new = begin_call(row.pk, 2, name="send_mail", ordinal=1, call_id="9")
    page.tab.until("document.querySelector('[data-trace]').textContent.includes('send_mail')")
    page.tab.until("document.querySelector('[data-trace]').textContent.includes('2 payments of')")
    finish_call(new)

    page.tab.evaluate("document.querySelector('[data-filter=failed]').click()")
    page.tab.until("document.querySelectorAll('[data-call]').length === 2")
    activity.cancel(row.pk)
