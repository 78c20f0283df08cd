"""Shorthands of the tests that look at rows: claim and drive an activity as a worker would."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django.db import connection

from django_agentexec import activity
from django_agentexec.activity.store import apply_one
from django_agentexec.activity.suspension import Suspend
from django_agentexec.activity.transitions import Complete, Fail, Start
from django_agentexec.models import Activity, ActivityLog
from django_agentexec.queues import Claim, get_queue
from tests.testapp.agents import Text, report, shout

WRITES_OF_A_BATCH = 1 if connection.vendor == "postgresql" else 2  # rows and lines


def row(agent_id: UUID) -> Activity:
    """Return the row as it is now."""
    return Activity.objects.get(pk=agent_id)


def messages(agent_id: UUID) -> list[str]:
    """Return the log's messages, first to last."""
    return list(ActivityLog.objects.filter(activity_id=agent_id).values_list("message", flat=True))


def statuses() -> Counter[str]:
    """Return the number of activities with each status."""
    return Counter(Activity.objects.values_list("status", flat=True))


def all_ended() -> bool:
    """Whether no activity is queued or running."""
    return not Activity.objects.active().exists()


def running_activity() -> UUID:
    """Return a new activity that a worker has started, with fence 1."""
    agent_id = shout.enqueue(Text()).agent_id
    start(agent_id)
    return agent_id


def reporting_activity(message: str = "Reading", percentage: int = 10) -> UUID:
    """Return a new activity that a worker has started and that has reported its progress."""
    agent_id = report.enqueue(Text()).agent_id
    start(agent_id)
    activity.update(agent_id, message, percentage=percentage)
    return agent_id


def start(agent_id: UUID, fence: int = 1) -> Activity:
    """Start an attempt, without the queue."""
    return apply_one(Start(agent_id=agent_id, fence=fence, worker="w", crashes=0))


def complete(agent_id: UUID, fence: int = 1, **values: Any) -> Activity:
    """Complete an attempt, without the queue."""
    return apply_one(Complete(agent_id=agent_id, fence=fence, **values))


def fail(agent_id: UUID, fence: int = 1, *, error: str = "no", **values: Any) -> Activity:
    """End an attempt that failed, without the queue."""
    return apply_one(Fail(agent_id=agent_id, fence=fence, error=error, **values))


def suspend(agent_id: UUID, fence: int = 1, *, awaits: Iterable[UUID] = (), **values: Any) -> Activity:
    """Suspend an attempt until these activities have ended, or for what the values name, without the queue."""
    return apply_one(Suspend(agent_id=agent_id, fence=fence, awaited_ids=list(awaits), **values))


def claim(limit: int = 10, queue: str = "default") -> list[Claim]:
    """Return what a worker would get now."""
    return get_queue().ack_and_claim(queue, "w", limit=limit).claimed


def claimed_ids(limit: int = 10, queue: str = "default") -> list[UUID]:
    """Return the ids of what a worker would get now, first to last."""
    return [one.agent_id for one in claim(limit, queue)]
