"""Fixtures for the whole suite."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import pytest
from redis import Redis

from tests.support import server_plugin
from tests.support.servers import Valkey

# Schedules need django-celery-beat, which may not allow the newest Django yet.
collect_ignore_glob = [] if find_spec("django_celery_beat") else ["integration/schedules/*"]


@pytest.fixture(scope="session")
def valkey() -> Valkey:
    """Start the suite's Valkey server."""
    return server_plugin.start_valkey()


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix: None) -> None:
    """Start PostgreSQL if the tests run on it, before the test database is created."""
    from django.conf import settings

    if settings.DATABASES["default"]["ENGINE"] == "django.db.backends.postgresql":
        settings.DATABASES["default"].update(server_plugin.start_postgresql())


@pytest.fixture
def clean_valkey(valkey: Valkey) -> Iterator[Valkey]:
    """Use the suite's Valkey server, and leave nothing in it for the next test."""
    from django_agentexec.queues import get_queue
    from tests.support.background_threads import settle

    yield valkey
    valkey.restart_if_dead()  # a failed test has left it so, and the next tests must not fail for it
    settle()
    queue = get_queue()
    queue.clear()
    queue.close()
    # A test that changes settings has had several queue objects, each of which knows its own keys only.
    with Redis(unix_socket_path=str(valkey.socket)) as client:
        client.flushall()


@pytest.fixture(autouse=True)
def close_connections_of_async_tests() -> Iterator[None]:
    """Close what `sync_to_async` opened in its thread: PostgreSQL drops no test database that is in use."""
    from asgiref.sync import SyncToAsync
    from django.db import connections

    yield
    SyncToAsync.single_thread_executor.submit(connections.close_all).result()


@pytest.fixture(autouse=True)
def fresh_queue() -> Iterator[None]:
    """Give each test a queue object of the current settings, counters at zero, and prices that are read again."""
    from django_agentexec.costs.prices import table
    from django_agentexec.monitoring.metrics import counting
    from django_agentexec.queues import reset_queue

    yield
    counting.reset()
    table.reset()
    reset_queue()
