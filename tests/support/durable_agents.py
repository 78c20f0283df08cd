"""A task whose handler runs an agent with scripted answers, and fails in its first attempt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from django_agentexec import task
from django_agentexec.models import Activity
from django_agentexec.testing import drain
from tests.support.contexts import Empty

DONE: Counter[str] = Counter()
"""What handlers and tools have done; the fixture `durable_tasks` resets it."""
TASK = "clerk"


def run(handler: Callable[..., Any], *, context: BaseModel | None = None, **options: Any) -> Activity:
    """Register `handler` as the task, enqueue it, run it with its retries, and return the row."""
    task(TASK, **{"max_retries": 3, "backoff": lambda *_: 0.0, **options})(handler).enqueue(context or Empty())
    return drained()


def drained() -> Activity:
    """Run what is queued, and return the row of the task."""
    drain()
    return Activity.objects.get(agent_type=TASK)


def fail_once() -> None:
    """Fail in the first attempt."""
    DONE["fail"] += 1
    if DONE["fail"] == 1:
        raise ConnectionError("the first attempt fails")
