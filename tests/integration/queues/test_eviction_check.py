"""The system check of the server's eviction policy."""

from __future__ import annotations

import pytest

from django_agentexec import checks
from django_agentexec.queues import get_queue


@pytest.mark.parametrize(("policy", "expected"), [("allkeys-lru", ["agentexec.W002"]), ("noeviction", [])])
def test_a_server_that_may_drop_work(policy: str, expected: list[str]) -> None:
    client = get_queue().client  # type: ignore[attr-defined]  # the Redis queue's
    client.config_set("maxmemory-policy", policy)
    try:
        messages = checks.check_eviction(None)
    finally:
        client.config_set("maxmemory-policy", "noeviction")

    assert [message.id for message in messages] == expected
    assert all(message.hint for message in messages)
