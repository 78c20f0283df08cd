"""The dashboard in a browser: it moves without a reload, rests when nobody looks, and can be used by all."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth.models import Permission, User
from django.test import override_settings

from django_agentexec import QueueUnavailable, activity, concurrency
from django_agentexec.models import Pause
from django_agentexec.monitoring.metrics import counting
from django_agentexec.queues import get_queue
from tests.browser.conftest import Page
from tests.support.activity_rows import reporting_activity
from tests.support.admin_pages import DASHBOARD, page_of
from tests.support.breaker_states import note_call
from tests.support.health_checks import announce
from tests.testapp.agents import Text, report


def entry(agent_id: UUID) -> str:
    return f'li[data-id="{agent_id}"]'


def test_shows_counts_and_what_runs(page: Page) -> None:
    agent_id = reporting_activity("Reading <b>page</b> 3", 30)
    report.enqueue(Text())

    page.open(DASHBOARD)

    page.tab.until(f"document.querySelector('{entry(agent_id)}')")
    assert page.tab.text("[data-count=running]") == "1"
    assert page.tab.text("[data-count=queued]") == "1"
    assert "Reading <b>page</b> 3" in page.tab.text(entry(agent_id))
    assert page.tab.evaluate(f"document.querySelector('{entry(agent_id)} progress').value") == 30
    assert "No worker is running" in page.tab.text("[data-workers]")
    assert "Queue default" in page.tab.text("[data-problems]")
    assert "manage.py runagentworkers" in page.tab.text("[data-problems]")


def test_moves_without_a_reload_and_says_farewell(page: Page) -> None:
    agent_id = reporting_activity()
    page.open(DASHBOARD)
    page.tab.evaluate("window.isTheSamePage = true")

    activity.update(agent_id, "Writing", percentage=80)
    page.tab.until(f"document.querySelector('{entry(agent_id)} progress').value === 80")
    assert "Writing" in page.tab.text(entry(agent_id))

    later = reporting_activity("I am new")
    page.tab.until(f"document.querySelector('{entry(later)}')")
    activity.complete(agent_id)
    counting.flush()
    page.tab.until(f"!document.querySelector('{entry(agent_id)}')")
    page.tab.until("document.querySelector('[data-count=complete_last_hour]').innerText === '1'")
    assert page.tab.evaluate("window.isTheSamePage")


def test_charts_the_last_hour_and_tells_it_in_words_and_numbers(page: Page) -> None:
    activity.complete(reporting_activity())
    counting.flush()

    page.open(DASHBOARD)

    page.tab.until("document.querySelector('[data-chart=throughput] rect[data-status=complete]')")
    label = page.tab.evaluate("document.querySelector('[data-chart=throughput] svg').getAttribute('aria-label')")
    assert label.startswith("Ended: 1 Complete, 0 Failed, 0 Canceled")
    page.tab.click("[data-numbers] summary")
    assert page.tab.until("document.querySelectorAll('[data-numbers] tbody tr').length") == 60


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bool], None]]:
    """Switches Redis off and on, as far as the overview is concerned."""
    queue = type(get_queue())
    before, is_down = queue.read_counters, [False]

    def read_counters(self: Any, names: Sequence[str]) -> list[dict[str, float]]:
        if is_down[0]:
            raise QueueUnavailable("The queue's Redis does not answer (refused).")
        return before(self, names)

    monkeypatch.setattr(queue, "read_counters", read_counters)

    def switch(down: bool) -> None:
        is_down[0] = down

    yield switch
    is_down[0] = False


def test_without_redis_the_unknown_is_unknown_and_rows_are_counted(page: Page, outage: Callable[[bool], None]) -> None:
    reporting_activity("Reading", 30)
    report.enqueue(Text())
    outage(True)

    page.open(DASHBOARD)

    page.tab.until("document.querySelector('[data-connection]').dataset.state === 'outage'")
    assert page.tab.text("[data-connection]") == "No connection to Redis, retrying every 5 s"
    assert page.tab.text("[data-count=running]") == "Unknown"
    assert "database: 1 started" in page.tab.text(".ae-counts > [data-status=running]")
    assert page.tab.text("[data-count=queued]") == "1"
    assert page.tab.text("[data-count=complete_last_hour]") == "Unknown"
    assert "no earlier value" in page.tab.text(".ae-counts > [data-status=complete]")
    assert "No worker is running" not in page.tab.text("[data-workers]")
    assert page.tab.text("[data-queues] tbody").count("Unknown") == 3
    assert page.tab.text("[data-outage]").startswith("Redis unavailable\n\nNew runs are saved")
    chart = page.tab.evaluate("document.querySelector('[data-chart=throughput] svg').textContent")
    assert "Unknown while Redis is unavailable" in chart
    assert page.tab.evaluate(CONTRASTS.replace("SELECTOR", "'.ae-page *'")) == []
    page.tab.resize(390, 800, is_phone=True)
    page.tab.until("document.documentElement.scrollWidth <= 390")


def test_an_outage_shows_the_last_known_values_with_their_time(page: Page, outage: Callable[[bool], None]) -> None:
    announce(host="web-1", pid=2114, running=1)
    activity.complete(reporting_activity())
    counting.flush()
    page.open(DASHBOARD)
    page.tab.until("document.querySelector('[data-count=complete_last_hour]').innerText === '1'")

    outage(True)
    page.tab.until("document.querySelector('[data-count=complete_last_hour]').innerText === 'Unknown'")

    note = page.tab.text(".ae-counts > [data-status=complete] [data-note]")
    assert re.fullmatch(r"1 at \d\d:\d\d", note)
    assert page.tab.evaluate("document.querySelector('[data-status=complete] [data-note]').title").endswith(" UTC")
    assert "Unknown" in page.tab.text("[data-workers] tbody")
    assert "web-1" in page.tab.text("[data-workers] tbody")
    assert page.tab.text("[data-chart=throughput] [data-chart-note]").startswith("As of ")

    outage(False)
    page.tab.until("document.querySelector('[data-count=complete_last_hour]').innerText === '1'")
    assert page.tab.text("[data-connection]") != "No connection to Redis, retrying every 5 s"
    assert page.tab.evaluate("document.querySelector('[data-outage]').hidden")


@override_settings(TIME_ZONE="Pacific/Kiritimati")
def test_times_are_in_the_servers_zone(page: Page) -> None:
    page.tab.call("Emulation.setTimezoneOverride", timezoneId="America/New_York")
    page.open(DASHBOARD)
    page.tab.click("[data-numbers] summary")

    page.tab.until("document.querySelector('[data-numbers] tbody time')")
    title, shown, iso = page.tab.evaluate(
        "(e => [e.title, e.innerText, e.dateTime])(document.querySelector('[data-numbers] tbody time'))"
    )
    moment = datetime.fromisoformat(iso).astimezone(ZoneInfo("Pacific/Kiritimati"))
    assert title == f"{moment:%Y-%m-%d %H:%M:%S} Pacific/Kiritimati"
    assert shown == f"{moment:%H:%M}"


def set_hidden(page: Page, is_hidden: bool) -> None:
    """Do to the page what a browser does to a tab that goes out of sight."""
    page.tab.evaluate(
        f"Object.defineProperty(document, 'hidden', {{value: {json.dumps(is_hidden)}, configurable: true}});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )


def test_a_hidden_tab_asks_for_nothing_and_catches_up_when_it_is_back(page: Page) -> None:
    agent_id = reporting_activity()
    page.open(DASHBOARD)
    page.tab.until("document.querySelector('[data-connection]').dataset.state === 'polling'")

    set_hidden(page, True)
    assert page.tab.text("[data-connection]") == "Paused"
    asked = page.requests("/dashboard/data/")
    activity.update(agent_id, "Unseen", percentage=60)
    # Longer than the shorter interval: were it asking, it would have asked.
    page.tab.evaluate("new Promise(done => setTimeout(done, 2000))")
    assert page.requests("/dashboard/data/") == asked
    assert "Unseen" not in page.tab.text(entry(agent_id))

    set_hidden(page, False)
    page.tab.until(f"document.querySelector('{entry(agent_id)} progress').value === 60")


def test_the_reader_can_pause_it_with_the_keyboard(page: Page) -> None:
    reporting_activity()
    page.open(DASHBOARD)
    page.tab.evaluate("document.querySelector('[data-pause]').focus()")

    page.tab.press("Enter")

    page.tab.until("document.querySelector('[data-connection]').dataset.state === 'paused'")
    assert page.tab.evaluate("document.querySelector('[data-pause]').getAttribute('aria-pressed')") == "true"
    page.tab.press("Enter")
    page.tab.until("document.querySelector('[data-connection]').dataset.state === 'polling'")


def test_everything_is_reached_with_the_keyboard_and_seen_to_be(page: Page) -> None:
    agent_id = reporting_activity()
    page.open(DASHBOARD)
    page.tab.until(f"document.querySelector('{entry(agent_id)}')")
    page.tab.evaluate("document.querySelector('#content-start').focus()")

    reached = set()
    for _ in range(30):
        page.tab.press("Tab")
        reached.add(
            page.tab.evaluate(
                "(() => { const e = document.activeElement; const s = getComputedStyle(e);"
                "return [e.closest('#ae-dashboard') ? e.innerText.split('\\n')[0].trim() : '',"
                " s.outlineStyle !== 'none' || s.boxShadow !== 'none'].join('|') })()"
            )
        )

    names = {name.partition("|")[0] for name in reached}
    assert {"Hold updates", "Running", "Queued", "report", "As a table"} <= names
    assert all(seen.endswith("|true") for seen in reached if not seen.startswith("|"))


def test_bars_have_names_and_tables_have_captions(page: Page) -> None:
    reporting_activity()
    page.open(DASHBOARD)
    page.tab.until("document.querySelector('.ae-running progress')")

    nameless = "[...document.querySelectorAll('#ae-dashboard progress')].filter(e => !e.ariaLabel).length"
    assert page.tab.evaluate(nameless) == 0
    assert page.tab.evaluate("[...document.querySelectorAll('#ae-dashboard table')].every(e => e.caption)")
    assert page.tab.evaluate("document.querySelectorAll('#ae-dashboard [role=status]').length") == 1


# WCAG 2.2, 1.4.3: the relative luminance of colours, and the least contrast of text of normal size.
CONTRASTS = """
(() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgb = (...colors) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const color of colors) { canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (color) => color.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (e) => e ? [...behind(e.parentElement), getComputedStyle(e).backgroundColor] : ['#fff'];
  const found = [];
  for (const e of document.querySelectorAll(SELECTOR)) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || e.closest('.ae-hidden, option, [hidden]') || !e.getClientRects().length) continue;
    const [a, b] = [light(rgb(...behind(e), getComputedStyle(e).color)), light(rgb(...behind(e)))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push(`${ratio.toFixed(2)} ${e.className} ${e.innerText.slice(0, 30)}`);
  }
  return found;
})()
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(page: Page, scheme: str) -> None:
    ids = [reporting_activity() for _ in range(4)]
    activity.complete(ids[0])
    activity.error(ids[1], "broken")
    activity.cancel(ids[2])
    page.tab.prefer(color_scheme=scheme)

    for path in (DASHBOARD, page_of(ids[1]), page_of(ids[3]), page_of(ids[3], "cancel")):
        page.open(path)
        page.tab.until("document.querySelector('.ae-page')")
        assert page.tab.evaluate(CONTRASTS.replace("SELECTOR", "'.ae-page *'")) == [], path
    page.open("/admin/agentexec/activity/")
    assert page.tab.evaluate(CONTRASTS.replace("SELECTOR", "'#result_list .ae-badge, #result_list td *'")) == []
    background = page.tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 18, 18)"}[scheme]


def test_fits_a_phone(page: Page) -> None:
    ids = [
        reporting_activity("A long message that says in many words what is being done at the moment", 42)
        for _ in range(3)
    ]
    activity.error(ids[0], "broken" * 40, traceback="Traceback" * 40)
    page.tab.resize(375, 700, is_phone=True)

    for path in (DASHBOARD, page_of(ids[0]), page_of(ids[1]), page_of(ids[1], "cancel")):
        page.open(path)
        page.tab.until("document.querySelector('.ae-card')")
        assert page.tab.evaluate("document.documentElement.scrollWidth") <= 375, path


def test_bars_stand_still_for_those_who_want_that(page: Page) -> None:
    reporting_activity()
    page.tab.prefer(reduced_motion="reduce")
    page.open("/admin/agentexec/activity/")

    dot = "getComputedStyle(document.querySelector('.ae-badge'), '::before').animationName"
    assert page.tab.evaluate(dot) == "none"


# Pauses


def test_a_queue_and_a_task_are_paused_and_resumed(page: Page) -> None:
    User.objects.get(username="maria").user_permissions.add(Permission.objects.get(codename="pause_activity"))
    report.enqueue(Text())
    row = "document.querySelector('[data-queues] tbody tr')"
    page.open(DASHBOARD)
    page.tab.until(f"{row}.querySelector('a.ae-button')")
    page.tab.follow("[data-queues] a.ae-button")
    page.tab.evaluate("document.querySelector('[name=reason]').value = 'The provider is down'")
    page.tab.follow("button[data-is-main]")

    page.tab.until(f"{row}.innerText.includes('by maria · The provider is down')")
    assert "Queue default" in page.tab.text("[data-problems]")
    concurrency.pause("task", report.name)
    page.tab.until("document.querySelector('[data-task] .ae-mark')")
    page.tab.evaluate("(window.former = document.querySelector('[data-queues] button')).focus()")
    page.tab.until("document.querySelector('[data-queues] button') !== window.former")  # the next poll
    assert page.tab.evaluate("document.activeElement.dataset.focus") == "resume queue:default"

    page.tab.follow("[data-queues] button")
    page.tab.follow("[data-task] button")
    assert not Pause.objects.exists()


def test_a_poll_does_not_replace_a_button_that_is_pressed(page: Page) -> None:
    User.objects.get(username="maria").user_permissions.add(Permission.objects.get(codename="pause_activity"))
    report.enqueue(Text())
    page.open(DASHBOARD)
    page.tab.until("document.querySelector('[data-queues] a.ae-button')")

    is_kept = page.tab.evaluate("""(async () => {
        const script = document.querySelector("script[type=module][src*='agentexec/js/']");
        const { writeQueues } = await import(new URL("tables.js", script.src));
        const table = document.querySelector("[data-queues]");
        const button = table.querySelector("a.ae-button");
        const rewritten = (event) => {
            button.dispatchEvent(new PointerEvent(event, { bubbles: true }));
            return new Promise((resolve) => setTimeout(() => {
                writeQueues(table, [], []);
                resolve(button.isConnected);
            }));
        };
        return [await rewritten("pointerdown"), await rewritten("pointerup")];
    })()""")

    assert is_kept == [True, False]


def test_the_page_of_an_activity_follows_a_pause(page: Page) -> None:
    agent_id = report.enqueue(Text()).agent_id
    page.open(page_of(agent_id))
    page.tab.evaluate("window.isTheSamePage = true")

    concurrency.pause("queue", "default", reason="The provider is down")
    page.tab.until("document.querySelector('.ae-pause')?.innerText.includes('The provider is down')")
    concurrency.resume("queue", "default")
    page.tab.until("!document.querySelector('.ae-pause')")
    assert page.tab.evaluate("window.isTheSamePage")


# Models


def test_models_with_a_circuit_breaker_have_a_card(page: Page) -> None:
    page.open(DASHBOARD)
    page.tab.until("document.querySelector('[data-queues] tbody tr')")
    assert page.tab.evaluate("document.querySelector('[data-models-card]').hidden")
    for _ in range(20):
        note_call("openai/gpt-5", reason="InternalServerError 500")

    page.open(DASHBOARD)

    page.tab.until("document.querySelector('[data-models] .ae-badge[data-status=error]')")
    assert "trial call in" in page.tab.text("[data-models]")
