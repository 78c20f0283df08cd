"""Fixtures of the browser tests: one Chromium for all, a fresh page with a signed-in user for each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.test import Client

from tests.admin_pages import ALL, staff
from tests.browser.chromium import Chromium, Tab, chromium, find_chromium

HERE = "tests/browser/"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is in this folder, and skip it where there is no browser."""
    own = [item for item in items if HERE in item.path.as_posix()]
    for item in own:
        item.add_marker(pytest.mark.browser)
        item.add_marker(pytest.mark.django_db(transaction=True))
        if find_chromium() is None:
            item.add_marker(pytest.mark.skip(reason="There is no Chromium; name one in CHROMIUM."))


@pytest.fixture(scope="session")
def browser() -> Iterator[Chromium]:
    """A running browser."""
    executable = find_chromium()
    assert executable is not None
    with chromium(executable) as running:
        yield running


class Page:
    """A tab of a member of the staff, on the live server; addresses are paths."""

    def __init__(self, tab: Tab, base: str) -> None:
        self.tab = tab
        self.base = base

    def open(self, path: str) -> None:
        """Go to a path."""
        self.tab.open(f"{self.base}{path}")

    def requests(self, part: str) -> int:
        """Return how many addresses with `part` in them the page has fetched so far."""
        found = f"performance.getEntriesByType('resource').filter(e => e.name.includes('{part}')).length"
        return int(self.tab.evaluate(found))


@pytest.fixture
def page(browser: Chromium, live_server: object, transactional_db: None) -> Iterator[Page]:
    """A page whose console stays without errors until the end of the test."""
    base = str(live_server)
    client = Client()
    client.force_login(staff(*ALL))
    with browser.tab() as tab:
        tab.resize(1280)
        tab.set_cookie("sessionid", client.cookies["sessionid"].value, base)
        yield Page(tab, base)
        # Every browser asks for this file; whether there is one is the project's affair.
        assert [error for error in tab.errors if "favicon.ico" not in error] == []
