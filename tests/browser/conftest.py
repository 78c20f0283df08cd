"""Fixtures of the browser tests: one Chromium for all, a fresh page with a signed-in user for each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.test import Client

from django_agentexec.conf import conf
from tests.browser.chromium import Chromium, Tab, chromium, find_chromium
from tests.support.admin_pages import ALL, staff
from tests.support.asgi_server import Server, serve
from tests.support.servers import Valkey

HERE = "tests/browser/"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is in this folder, and skip it where there is no browser."""
    own = [item for item in items if HERE in item.path.as_posix()]
    for item in own:
        item.add_marker(pytest.mark.browser)
        item.add_marker(pytest.mark.django_db(transaction=True))
        if find_chromium() is None:
            item.add_marker(pytest.mark.skip(reason="There is no Chromium; name one in CHROMIUM."))


@pytest.fixture(autouse=True)
def queue_on_valkey(clean_valkey: Valkey) -> None:
    """Start Valkey before the first test of this folder, and clean it after each."""


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
def page(browser: Chromium, live_server: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    """A page of a server without websockets."""
    # Not by the settings: that makes a new queue object, which knows nothing of what it must clean up.
    conf.reload()
    monkeypatch.setattr(type(conf), "SOCKET_URL", "")
    with signed_in_page(browser, str(live_server)) as opened:
        yield opened


@pytest.fixture
def server(settings: Any, monkeypatch: pytest.MonkeyPatch, transactional_db: None) -> Iterator[Server]:
    """A server with websockets, and with the static files."""
    settings.ALLOWED_HOSTS = ["127.0.0.1"]
    from tests.asgi import application, http

    monkeypatch.setitem(application.application_mapping, "http", ASGIStaticFilesHandler(http))
    with serve() as running:
        yield running


@pytest.fixture
def live_page(browser: Chromium, server: Server) -> Iterator[Page]:
    """A page of a server with websockets."""
    with signed_in_page(browser, server.origin) as opened:
        yield opened


@contextmanager
def signed_in_page(browser: Chromium, base: str) -> Iterator[Page]:
    """Open a page of a member of the staff, whose console must stay without errors until the end of the test."""
    client = Client()
    client.force_login(staff(*ALL))
    with browser.tab() as tab:
        tab.resize(1280)
        tab.set_cookie("sessionid", client.cookies["sessionid"].value, base)
        yield Page(tab, base)
        # Every browser asks for this file; whether there is one is the project's affair.
        assert [error for error in tab.errors if "favicon.ico" not in error] == []
