"""Fixtures of several files of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.core.cache import cache
from django.test import override_settings
from django.utils import translation

import tests.urls  # noqa: F401  # here, since Python 3.11 fails if two threads parse modules at the same time
from django_agentexec import task
from django_agentexec.tasks import registry
from django_agentexec.testing import memory_queue
from tests.support import durable_agents
from tests.support.limit_stores import Clock
from tests.support.research_family import FAILING, RUNS, discover, research, sync_discover
from tests.support.servers import Valkey


@pytest.fixture(autouse=True)
def queue_on_valkey(clean_valkey: Valkey) -> None:
    """Start Valkey before the first test of this folder, and clean it after each."""


@pytest.fixture(autouse=True)
def unthrottled() -> None:
    """Forget how many changes the callers of earlier tests made: users get the same ids in each test."""
    cache.clear()


@pytest.fixture(autouse=True)
def registered_tasks() -> Iterator[None]:
    """Unregister the tasks that a test has registered."""
    before = {definition.name for definition in registry}
    yield
    for definition in registry:
        if definition.name not in before:
            registry.unregister(definition.name)


@pytest.fixture
def clock() -> Clock:
    """A clock for a store of limits in memory."""
    return Clock()


@pytest.fixture
def queue_in_memory() -> Iterator[None]:
    """The queue in memory, in place of Valkey."""
    with memory_queue():
        yield


@pytest.fixture
def german() -> Iterator[None]:
    """A German site, and a user who reads German."""
    with override_settings(LANGUAGE_CODE="de"), translation.override("de"):
        yield


@pytest.fixture
def few_changes() -> Iterator[None]:
    """Three changes per hour for each user."""
    with override_settings(AGENTEXEC={"API_CHANGE_RATE": "3/hour"}):
        yield


@pytest.fixture
def family(queue_in_memory: None) -> None:
    """The tasks of a family, and a queue in memory."""
    RUNS.clear()
    FAILING.clear()
    task("research", max_retries=0)(research)
    task("discover", max_retries=0)(discover)
    task("sync_discover", max_retries=0)(sync_discover)


@pytest.fixture
def durable_tasks(queue_in_memory: None) -> None:
    """A queue in memory for the tasks that a test registers, and counters at zero."""
    durable_agents.DONE.clear()
