"""Makes the README's screenshots: `make screenshots`, or `python -m tests.browser.screenshots`.

Runs the example project for some minutes, so that the dashboard has something to show, and photographs its pages
with a headless Chromium.
"""

from __future__ import annotations

import argparse
import itertools
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import requests

from example_project.documents.catalogue import CONTRACTS, REPORTS
from tests.browser.chromium import Tab, chromium, find_chromium
from tests.browser.example import PATIENCE, Example, example

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "screenshots"
DOCUMENTS = [*CONTRACTS, *REPORTS]
PAUSES = (1.0, 0.5, 3.0, 2.0, 0.5, 5.0, 1.5)  # seconds between two runs, round and round
WIDTH, HEIGHT = 1200, 800
SETTLED = 0.8  # seconds after which nothing slides into its place any more
UNDER_WAY = 6.0  # seconds after which runs have come somewhere
PERCENT = "parseInt(document.querySelector('[data-part=percent]').textContent)"


class Visitor:
    """Starts and cancels runs, as the demo's user."""

    def __init__(self, site: Example) -> None:
        self._site, self._http = site, requests.Session()
        page = self._http.get(site.url + site.path_of_link, timeout=30).text
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
        assert token, page
        self._token = token[1]

    def start(self, document: str) -> str:
        """Start a run on a document; return the path of its page."""
        return urlsplit(self._post("/", document=document).url).path

    def fail(self) -> None:
        """Start a run that ends in an error: there is no such document."""
        headers = {"X-CSRFToken": self._http.cookies["csrftoken"]}
        url = f"{self._site.url}/agents/tasks/review_contract/"
        self._http.post(url, json={"document": "unsigned-draft.md"}, headers=headers, timeout=30)

    def cancel(self, run: str) -> None:
        """Cancel the run of this page."""
        self._post(f"{run}cancel/")

    def wait_for_quiet(self) -> None:
        """Return when nothing is queued or running."""
        deadline = time.monotonic() + PATIENCE
        while self._http.get(f"{self._site.url}/agents/activities/active/count/", timeout=30).json()["count"]:
            assert time.monotonic() < deadline, "The runs do not end."
            time.sleep(0.5)

    def _post(self, path: str, **fields: str) -> requests.Response:
        answer = self._http.post(self._site.url + path, data={"csrfmiddlewaretoken": self._token, **fields}, timeout=30)
        answer.raise_for_status()
        return answer


def work(visitor: Visitor, minutes: float) -> None:
    """Start runs for so long, some of which fail or are canceled."""
    end, documents, pauses = time.monotonic() + 60 * minutes, itertools.cycle(DOCUMENTS), itertools.cycle(PAUSES)
    for number in itertools.count():
        if time.monotonic() > end:
            return
        run = visitor.start(next(documents))
        time.sleep(next(pauses))
        if number % 9 == 4:
            visitor.cancel(run)
        if number % 12 == 7:
            visitor.fail()


def photograph(site: Example, tab: Tab, visitor: Visitor, folder: Path) -> None:
    """Write the pictures."""
    for name, is_whole in itertools.chain(_example(site, tab, visitor), _admin(site, tab, visitor)):
        time.sleep(SETTLED)
        tab.screenshot(folder / f"{name}.png", full=is_whole)
        print(folder / f"{name}.png")


def _example(site: Example, tab: Tab, visitor: Visitor) -> Iterator[tuple[str, bool]]:
    """Bring the example's pages up; yield each picture's name, and whether it shows what is below the fold."""
    visitor.wait_for_quiet()  # else a run would wait for its lock key
    tab.open(site.url + visitor.start("saas-subscription-and-data-processing.md"))
    tab.until(f"{PERCENT} >= 40", 120)
    yield "example-run", False


def _admin(site: Example, tab: Tab, visitor: Visitor) -> Iterator[tuple[str, bool]]:
    """Bring the admin's pages up, as `_example` does."""
    visitor.wait_for_quiet()
    runs = [visitor.start(document) for document in DOCUMENTS * 2]
    tab.open(f"{site.url}/admin/agentexec/activity/dashboard/")
    time.sleep(UNDER_WAY)
    yield "dashboard", True
    tab.prefer(color_scheme="dark")
    yield "dashboard-dark", True
    tab.prefer(color_scheme="light")
    tab.open(f"{site.url}/admin/agentexec/activity/{runs[0].split('/')[2]}/change/")
    yield "activity", False
    tab.open(f"{site.url}/admin/agentexec/activity/usage/")
    yield "usage", True


def main(arguments: list[str]) -> int:
    """Take the pictures; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=4.0, help="of work before the pictures (4)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where they go (docs/screenshots)")
    options = parser.parse_args(arguments)
    executable = find_chromium()
    if executable is None:
        print("No Chromium was found. Install one, or name it: CHROMIUM=/path/to/chromium", file=sys.stderr)
        return 1
    options.folder.mkdir(parents=True, exist_ok=True)
    with example() as site, chromium(executable) as browser, browser.tab() as tab:
        visitor = Visitor(site)
        work(visitor, options.minutes)
        tab.resize(WIDTH, HEIGHT)
        tab.open(site.url + site.path_of_link)
        photograph(site, tab, visitor, options.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
