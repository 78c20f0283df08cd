"""Recorded calls of models with tokens and costs, for tests of usage."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from itertools import count
from typing import Any
from uuid import UUID

from django_agentexec import activity
from django_agentexec.models import Activity, AgentCall, CallKind, CallState

_ordinals = count()


def run_of(task: str = "import", **metadata: Any) -> Activity:
    """Return a new activity."""
    return Activity.objects.get(agent_id=activity.create(task, metadata=metadata))


def child_of(parent: Activity, task: str = "import", **metadata: Any) -> Activity:
    """Return a new activity below another activity."""
    child = run_of(task, **metadata)
    Activity.objects.filter(pk=child.pk).update(parent=parent)
    return child


def at(day: int, hour: int = 12, month: int = 11) -> datetime:
    """Return a time in 2026."""
    return datetime(2026, month, day, hour, tzinfo=UTC)


def call(owner: Activity | UUID, name: str = "gpt-5", cost: str | None = None, **values: Any) -> AgentCall:
    """Return a new answered call of a model, by default with 1,000 input and 200 output tokens."""
    values = {"input_tokens": 1_000, "output_tokens": 200, "started_at": at(10), "state": CallState.DONE, **values}
    return AgentCall.objects.create(
        activity_id=owner.pk if isinstance(owner, Activity) else owner,
        kind=values.pop("kind", CallKind.MODEL),
        ordinal=next(_ordinals),
        name=name,
        cost=None if cost is None else Decimal(cost),
        finished_at=values["started_at"],
        **values,
    )
