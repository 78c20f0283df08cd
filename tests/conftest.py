"""Fixtures for the whole suite."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import pytest
from redis import Redis

from tests.support import server_plugin
from tests.support.servers import Valkey

# Schedules need django-celery-beat, which may not allow the newest Django yet.
collect_ignore_glob = [] if find_spec("django_celery_beat") else ["*/integration/schedules/*"]


@pytest.fixture(scope="session")
def valkey() -> Valkey:
    """The suite's Valkey server."""
    return server_plugin.valkey


@pytest.fixture(autouse=True)
def close_connections_of_async_tests() -> Iterator[None]:
    """Close what `sync_to_async` opened in its thread: PostgreSQL drops no test database that is in use."""
    from asgiref.sync import SyncToAsync
    from django.db import connections

    yield
    SyncToAsync.single_thread_executor.submit(connections.close_all).result()


@pytest.fixture(autouse=True)
def clean_queue() -> Iterator[None]:
    """Leave nothing in the queue for the next test."""
    from django_agentexec.monitoring.metrics import counting
    from django_agentexec.queues import get_queue, reset_queue

    yield
    counting.reset()
    queue = get_queue()
    queue.clear()
    queue.close()
    reset_queue()
    # A test that changes settings has had several queue objects, each of which knows its own keys only.
    with Redis(unix_socket_path=str(server_plugin.valkey.socket)) as client:
        client.flushall()
