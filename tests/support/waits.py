"""What waits in this process, for tests that act as soon as something waits, and that nothing waits afterwards."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from django_agentexec.activity import waiting as results
from django_agentexec.api import waiting as requests
from django_agentexec.live.connections import live_connections


def awaited() -> Collection[UUID]:
    """Return the activities for whose ends code waits."""
    return results._notifications._callbacks.keys()


def waiting_requests() -> int:
    """Return how many requests wait for a change of an activity."""
    return sum(len(each) for each in requests._watcher._waiters.values())


def held_waits() -> int:
    """Return how many waiting requests count for their users."""
    return sum(requests._waits._held.values())


def live_clients() -> int:
    """Return how many websockets, event streams and waiting requests count for their users."""
    return sum(live_connections._held.values())
