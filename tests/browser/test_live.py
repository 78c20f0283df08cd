"""The admin's pages over websockets: they move with the run, and catch up after a cut."""

from __future__ import annotations

from pathlib import Path

import pytest

from django_agentexec import Status, activity
from django_agentexec.live import hub
from django_agentexec.models import ActivityLog
from tests.browser.chromium import Chromium
from tests.browser.conftest import Page, signed_in_page
from tests.e2e.journal import Journal
from tests.support.activity_rows import reporting_activity, row
from tests.support.admin_pages import DASHBOARD, page_of
from tests.support.asgi_server import Server
from tests.support.pool_process import pool, until
from tests.testapp.agents import Work, sync_work


@pytest.fixture
def only_notices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the polls that find what a lost notice would have reported."""
    for name in ("CHECK_INTERVAL", "POLL_INTERVAL"):
        monkeypatch.setattr(hub, name, 600.0)


def is_live(page: Page) -> None:
    page.tab.until("document.querySelector('[data-connection]').dataset.state === 'live'")


def test_the_dashboard_moves_with_the_feed_and_asks_for_sums_only(only_notices: None, live_page: Page) -> None:
    agent_id = reporting_activity()
    live_page.open(DASHBOARD)
    is_live(live_page)
    asked = live_page.requests("overview=0")

    activity.update(agent_id, "Writing", percentage=80)
    live_page.tab.until(f"document.querySelector('li[data-id=\"{agent_id}\"] progress').value === 80")
    activity.complete(agent_id)
    live_page.tab.until(f"document.querySelector('li[data-id=\"{agent_id}\"] .ae-badge').innerText === 'Complete'")

    assert live_page.requests("overview=0") == asked


def test_a_page_whose_socket_is_cut_catches_up_without_a_gap(live_page: Page, server: Server) -> None:
    agent_id = reporting_activity()
    live_page.open(page_of(agent_id))
    is_live(live_page)
    live_page.tab.evaluate("window.isTheSamePage = true")

    activity.update(agent_id, "before the cut", percentage=30)
    live_page.tab.until("document.querySelector('#ae-activity progress').value === 30")
    server.cut()
    for number in range(5):
        activity.update(agent_id, f"unheard {number}", percentage=40 + number)
    is_live(live_page)
    activity.update(agent_id, "after the cut", percentage=90)
    live_page.tab.until("document.querySelector('#ae-activity progress').value === 90")

    lines = "[...document.querySelectorAll('.ae-text')].map(line => line.innerText)"
    messages = ActivityLog.objects.filter(activity_id=agent_id).values_list("message", flat=True)
    assert live_page.tab.evaluate(lines) == list(messages)
    activity.complete(agent_id)
    live_page.tab.until("document.querySelector('[data-field=status]').innerText === 'Complete'")
    assert live_page.tab.evaluate("window.isTheSamePage")


def test_the_dashboard_polls_while_its_socket_is_away(live_page: Page, server: Server) -> None:
    agent_id = reporting_activity()
    live_page.open(DASHBOARD)
    is_live(live_page)

    server.cut()
    activity.update(agent_id, "Writing", percentage=80)

    live_page.tab.until(f"document.querySelector('li[data-id=\"{agent_id}\"] progress').value === 80")
    is_live(live_page)


def test_a_server_without_sockets_is_asked_three_times_later_and_later(browser: Chromium, live_server: object) -> None:
    with signed_in_page(browser, str(live_server)) as page:
        count = "const Plain = WebSocket; window.asked = []; window.WebSocket = class extends Plain"
        count += " { constructor(url) { asked.push(performance.now()); super(url) } }"
        page.tab.call("Page.addScriptToEvaluateOnNewDocument", source=count)
        agent_id = reporting_activity()
        page.open(DASHBOARD)

        first, second, third = page.tab.until("asked.length >= 3 && asked")
        activity.update(agent_id, "Writing", percentage=80)
        page.tab.until(f"document.querySelector('li[data-id=\"{agent_id}\"] progress').value === 80")

        assert second - first >= 500
        assert third - second >= 1_000
        assert page.tab.evaluate("asked.length") == 3
        page.tab.errors.clear()  # the browser logs each socket that failed


def test_a_cancel_in_the_admin_is_reported_to_the_worker_at_once(live_page: Page, tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with pool("--workers", "1", LEASE=600, RECONCILE_INTERVAL=600):  # else they would find the cancellation, too
        agent_id = sync_work.enqueue(Work(journal=journal.path, name="long", seconds=60)).agent_id
        until(lambda: row(agent_id).status == Status.RUNNING, "the agent runs")
        live_page.open(page_of(agent_id, "cancel"))
        live_page.tab.evaluate("document.querySelector('button[data-kind=cancel]').click()")
        live_page.tab.until("document.querySelector('[data-field=status]')?.innerText === 'Canceled'")
        until(lambda: journal.names("canceled") == ["long"], "the handler stops")
