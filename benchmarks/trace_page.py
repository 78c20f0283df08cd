"""The page of an activity with many calls: `python -m benchmarks.trace_page`.

An activity with 200 calls of models and tools, whose outputs have 20 kB each, in SQLite. Measured are

- the time of the server for the page, and for the card of the trace that a refresh fetches, and
- in a headless Chromium, from the request to the end of the first layout, and the time of "Open all", which loads the
  content of each call.

Medians of some requests, after one that is not counted. Target: the page is shown within a second. Exits with 1 if the
target is missed. Without Chromium only the server is measured.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

CALLS = 200
OUTPUT = 20_000  # characters
SAMPLES = 7
MAX_SHOWN = 1.0  # seconds
LAID_OUT = "document.querySelector('[data-trace]').offsetHeight"
NAVIGATION = "performance.getEntriesByType('navigation')[0]"
OPEN_ALL = "document.querySelector('[data-open-all]').click()"
ALL_LOADED = f"document.querySelectorAll('[data-call] [data-is-loaded] pre').length >= {CALLS}"


def fill() -> Any:
    """Return a finished activity with its calls: each call of the model requests one of the tool."""
    from django.utils import timezone

    from django_agentexec.models import Activity, AgentCall, CallKind, CallState, Status

    start = timezone.now() - timedelta(minutes=10)
    row = Activity.objects.create(agent_type="answer", status=Status.COMPLETE, attempt=1, fence=1, queue="default")
    common: dict[str, Any] = {"activity": row, "state": CallState.DONE, "fence": 1, "agent": "Clerk"}
    text = "line of text with some words\n" * (OUTPUT // 29)
    calls = [AgentCall(kind=CallKind.AGENT, started_at=start, finished_at=timezone.now(), **common)]
    for number in range(CALLS):
        began = start + timedelta(seconds=2 * number)
        kind = CallKind.MODEL if number % 2 == 0 else CallKind.TOOL
        is_model = kind == CallKind.MODEL
        message = {"type": "message", "content": [{"type": "output_text", "text": text}]}
        values = {
            "output": {"output": [message]} if is_model else text,
            "arguments": None if is_model else {"id": number},
        }
        times = {"started_at": began, "finished_at": began + timedelta(seconds=1.5)}
        place = {"ordinal": number // 2, "call_id": "" if is_model else str(number)}
        calls.append(AgentCall(kind=kind, name="large-2" if is_model else "find", **place, **times, **values, **common))
    AgentCall.objects.bulk_create(calls)
    return row


def timed(function: Callable[[], Any]) -> float:
    """Return the median seconds of a call, after one that is not counted."""
    function()
    seconds = []
    for _ in range(SAMPLES):
        began = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def of_server(client: Any, path: str) -> dict[str, float]:
    """Return the seconds of the server."""
    card = path.replace("/change/", "/trace/")
    return {"server, page": timed(lambda: client.get(path)), "server, card": timed(lambda: client.get(card))}


def of_browser(client: Any, path: str) -> dict[str, float]:
    """Return the seconds of Chromium; none where there is no Chromium."""
    from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler

    from tests.asgi import application, http
    from tests.browser.chromium import chromium, find_chromium
    from tests.support.asgi_server import serve

    executable = find_chromium()
    if executable is None:
        return {}
    application.application_mapping["http"] = ASGIStaticFilesHandler(http)
    shown, opened = [], []
    with serve() as server, chromium(executable) as browser, browser.tab() as tab:
        tab.resize(1366)
        tab.set_cookie("sessionid", client.cookies["sessionid"].value, server.origin)
        for _ in range(SAMPLES + 1):
            tab.open(f"{server.origin}{path}")
            assert tab.evaluate(LAID_OUT)
            shown.append(float(tab.evaluate(f"{NAVIGATION}.loadEventEnd - {NAVIGATION}.startTime")) / 1000)
        for _ in range(3):
            tab.open(f"{server.origin}{path}")
            began = time.perf_counter()
            tab.evaluate(OPEN_ALL)
            tab.until(ALL_LOADED)
            opened.append(time.perf_counter() - began)
    return {"Chromium, page shown": statistics.median(shown[1:]), "Chromium, all opened": statistics.median(opened)}


def main() -> int:
    """Measure, and return the exit code."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    import django
    from django.conf import settings
    from django.test.utils import setup_databases, setup_test_environment, teardown_databases

    django.setup()
    setup_test_environment()
    settings.ALLOWED_HOSTS = ["127.0.0.1", "testserver"]
    databases = setup_databases(verbosity=0, interactive=False)
    try:
        from tests.support.admin_pages import ALL, page_of, signed_in

        row, client = fill(), signed_in(*ALL)
        path = page_of(row.pk)
        figures = {**of_server(client, path), **of_browser(client, path)}
    finally:
        teardown_databases(databases, verbosity=0)
    for name, seconds in figures.items():
        print(f"{name:<24}{seconds * 1000:8.0f} ms")
    slowest = figures.get("Chromium, page shown", figures["server, page"])
    print(f"Target: {CALLS} calls with {OUTPUT:,} characters are shown within {MAX_SHOWN:g} s.")
    return 0 if slowest <= MAX_SHOWN else 1


if __name__ == "__main__":
    sys.exit(main())
