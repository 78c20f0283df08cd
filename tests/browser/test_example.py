"""The example's pages in a real browser, over a real ASGI server and a real pool."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from tests.browser.chromium import Chromium, Tab
from tests.browser.example import Example, example

pytestmark = pytest.mark.e2e

PERCENT = "parseInt(document.querySelector('[data-part=percent]').textContent)"
STATUS = "document.querySelector('[data-part=status]').textContent"
CONNECTION = "document.querySelector('[data-part=connection]').dataset.state"
LOG = "[...document.querySelectorAll('[data-part=log] [data-message]')].map(e => e.textContent)"
AT_ONCE = 1.0  # seconds


@pytest.fixture(scope="module")
def site() -> Iterator[Example]:
    with example() as running:
        yield running


@pytest.fixture
def tab(site: Example, browser: Chromium) -> Iterator[Tab]:
    """A page of a new guest, on the list of runs."""
    with browser.tab() as opened:
        opened.resize(1200, 900)
        opened.open(f"{site.url}/welcome/")
        opened.follow("form[action$='/guest/'] button")
        yield opened


def start(tab: Tab, document: str) -> str:
    """Start a run by the form, and return its id; the page that follows is marked, so that a reload is noticed."""
    tab.click(f"input[value='{document}']")
    tab.follow("form[enctype] button.primary")
    tab.evaluate("window.isTheSamePage = true")
    return str(tab.evaluate("document.getElementById('run').dataset.id"))


def log_of(site: Example, agent_id: str) -> list[str]:
    """Return the log's messages as the database has them."""
    detail = json.loads(site.manage("agents", "show", agent_id, "--json"))
    return [line["message"] for line in detail["logs"]]


def test_the_bar_moves_and_reaches_the_end_without_a_reload(site: Example, tab: Tab) -> None:
    agent_id = start(tab, "marlowe-pike-quarterly-update.md")
    tab.until(f"{CONNECTION} === 'live'")
    tab.until(f"{PERCENT} > 0")
    tab.evaluate(
        f"window.seen = []; new MutationObserver(() => window.seen.push({PERCENT}))"
        ".observe(document.querySelector('[data-part=percent]'), {childList: true, characterData: true, subtree: true})"
    )

    tab.until(f"{PERCENT} === 100 && {STATUS} === 'complete'", 60)
    tab.until("document.querySelectorAll('#result-title').length")

    seen = tab.evaluate("window.seen")
    assert len(set(seen)) >= 4
    assert seen == sorted(seen)
    width = "document.querySelector('[data-part=bar] > div').style.width"
    assert tab.evaluate(f"{width} === '100%' && window.isTheSamePage")
    assert tab.evaluate(LOG) == log_of(site, agent_id)
    assert "Adjusted operating profit" in tab.text("[data-part=result]")
    assert tab.errors == []


def test_a_socket_that_the_server_cuts_is_opened_again_and_the_page_catches_up(site: Example, tab: Tab) -> None:
    agent_id = start(tab, "master-services-agreement.md")
    tab.until(f"{CONNECTION} === 'live' && {PERCENT} > 5")

    site.kill_server()
    before = tab.evaluate(PERCENT)
    tab.until(f"{CONNECTION} !== 'live'")
    site.start_server()
    tab.until(f"{CONNECTION} === 'live'", 30)

    tab.until(f"{PERCENT} > {before}")
    tab.until(f"{STATUS} === 'complete'", 60)
    assert tab.evaluate("window.isTheSamePage")
    assert tab.evaluate(LOG) == log_of(site, agent_id)


def test_without_websockets_it_polls_and_reaches_the_end(site: Example, tab: Tab) -> None:
    tab.call(
        "Page.addScriptToEvaluateOnNewDocument",
        source="window.WebSocket = class extends WebSocket { constructor() { super('ws://127.0.0.1:1/'); } }",
    )
    start(tab, "fennimore-hydro-annual-report.md")

    tab.until(f"{CONNECTION} === 'polling'", 10)
    tab.until(f"{PERCENT} === 100 && {STATUS} === 'complete'", 60)
    assert tab.evaluate("window.isTheSamePage")


def test_cancel_stops_the_run_on_screen_at_once_and_it_can_be_run_again(site: Example, tab: Tab) -> None:
    agent_id = start(tab, "commercial-lease.txt")
    tab.until(f"{CONNECTION} === 'live' && {STATUS} === 'running' && {PERCENT} > 0")

    started = time.monotonic()
    tab.click("[data-part=cancel] button")
    tab.until(f"{STATUS} === 'canceled'", AT_ONCE)
    assert time.monotonic() - started < AT_ONCE
    assert json.loads(site.manage("agents", "show", agent_id, "--json"))["status"] == "canceled"

    tab.click("[data-part=retry] button")
    tab.until(f"{STATUS} === 'running'", 30)
    assert tab.evaluate("window.isTheSamePage && document.querySelector('[data-part=attempt]').textContent") == "2"
    site.manage("agents", "cancel", agent_id, "--yes")
    tab.until(f"{STATUS} === 'canceled'", AT_ONCE)


def test_text_that_a_handler_streams_is_shown_while_it_runs(site: Example, tab: Tab) -> None:
    agent_id = start(tab, "master-services-agreement.md")
    tab.until(f"{CONNECTION} === 'live' && {STATUS} === 'running'")

    site.manage(
        "shell", "-c",
        "from django_agentexec.activity.streams import flush_stream, stream_text\n"
        f"from uuid import UUID; stream_text(UUID('{agent_id}'), 'The supplier may ', 1); flush_stream()\n"
        f"stream_text(UUID('{agent_id}'), 'end this agreement.', 1); flush_stream()",
    )  # fmt: skip

    tab.until("document.querySelector('[data-part=stream]').innerText === 'The supplier may end this agreement.'")
    site.manage("agents", "cancel", agent_id, "--yes")
    tab.until("document.querySelector('[data-part=streaming]').hidden")


def test_the_list_moves_and_shows_what_another_page_has_started(site: Example, tab: Tab) -> None:
    tab.until("document.getElementById('connection').dataset.state === 'live'")
    tab.evaluate("window.isTheSamePage = true")

    tab.evaluate(
        "fetch('/', {method: 'POST', body: new URLSearchParams({document: 'sorrel-aviation-credit-memo.txt',"
        "csrfmiddlewaretoken: document.querySelector('[name=csrfmiddlewaretoken]').value})})"
    )

    tab.until("document.querySelector('#runs li [data-status]').textContent === 'running'", 30)
    assert tab.text("#runs li a") == "Sorrel Aviation Leasing DAC"
    tab.until("document.querySelector('#runs li .bar').getAttribute('aria-valuenow') === '100'", 60)
    assert tab.evaluate("window.isTheSamePage && !document.getElementById('nothing')")


def test_no_page_is_wider_than_a_phone(site: Example, tab: Tab) -> None:
    start(tab, "commercial-lease.txt")
    tab.resize(360, 740, is_phone=True)
    for path in (tab.evaluate("location.pathname"), "/"):
        tab.open(site.url + path)
        assert tab.evaluate("document.documentElement.scrollWidth") <= 360
