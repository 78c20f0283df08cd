"""Fixtures of the tests that run real pools and real servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from xdist.scheduler import LoadScopeScheduling

from tests.e2e.journal import Journal
from tests.support.asgi_server import Server, cookie_of, serve
from tests.support.servers import Valkey
from tests.testapp.agents import PRELOAD_SDK
from tests.testapp.orchestration import IMPATIENT

HERE = "tests/e2e/"
WHOLE_FILES = ("test_example.py", "test_tutorial.py")
"""Files whose tests share a server or a project."""


class OneByOne(LoadScopeScheduling):
    """Gives each process of a parallel run the next test; the tests of some files stay together, and begin."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::")[0]
        return file if file.endswith(WHOLE_FILES) else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    """Distribute the tests one by one with `--dist loadgroup`; the marks of xdist do not work with this pytest."""
    return OneByOne(config, log) if config.getvalue("dist") == "loadgroup" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the long tests, so that a parallel run does not end with one of them alone."""
    items.sort(key=lambda item: not (HERE in item.path.as_posix() and item.get_closest_marker("slow")))


@pytest.fixture(autouse=True)
def queue_on_valkey(clean_valkey: Valkey) -> None:
    """Start Valkey before the first test of this folder, and clean it after each."""


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """A journal for this test's handlers."""
    return Journal(tmp_path)


@pytest.fixture(autouse=True)
def no_pause_after_deaths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace processes at once: many tests let them die."""
    monkeypatch.setenv(IMPATIENT, "1")


@pytest.fixture
def sdk_in_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load the agents SDK once per pool, not in each of its processes that runs an agent."""
    monkeypatch.setenv(PRELOAD_SDK, "1")


@pytest.fixture
def server(settings: Any) -> Iterator[Server]:
    """A running ASGI server."""
    settings.ALLOWED_HOSTS = ["127.0.0.1"]
    with serve() as running:
        yield running


@pytest.fixture
def root() -> str:
    """The cookie of someone who may do everything."""
    return cookie_of(User.objects.create_superuser("root", password="x"))
