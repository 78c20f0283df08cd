"""A stand-in for `django_agentexec.activity`, for runner tests that need no rows.

pytest_plugins = ["tests.support.activity_recorder"]
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from uuid import UUID

import pytest

from django_agentexec.runners import base


class InvalidPercentage(ValueError):
    """As the real module's: a percentage outside 0 to 100."""


class ActivityRecorder:
    """Keeps what is written; `refusal` is raised by each update, `usage_refusal` by each count of tokens."""

    def __init__(self) -> None:
        self.updates: list[tuple[str, int | None]] = []
        self.streamed: list[str] = []
        self.labels: list[str] = []
        self.retractions = 0
        self.usage: Counter[str] = Counter()
        self.usage_writes = 0
        self.ids: set[UUID] = set()
        self.refusal: Exception | None = None
        self.usage_refusal: Exception | None = None

    @property
    def messages(self) -> list[str]:
        """The log's lines."""
        return [message for message, _ in self.updates]

    async def aupdate(self, agent_id: UUID, message: str, percentage: int | None = None) -> None:
        self.ids.add(agent_id)
        if self.refusal is not None:
            raise self.refusal
        if percentage is not None and not 0 <= percentage <= 100:
            raise InvalidPercentage(f"{percentage} is no percentage.")
        self.updates.append((message, percentage))

    def stream(self, agent_id: UUID, text: str, *, label: str = "") -> None:
        self.ids.add(agent_id)
        self.streamed.append(text)
        self.labels.append(label)

    def retract_stream(self, agent_id: UUID) -> None:
        self.ids.add(agent_id)
        self.streamed.clear()
        self.retractions += 1

    async def aflush_stream(self) -> None:
        self.streamed.append("")

    async def aadd_usage(self, agent_id: UUID, usage: Mapping[str, int]) -> None:
        self.ids.add(agent_id)
        self.usage_writes += 1
        if self.usage_refusal is not None:
            raise self.usage_refusal
        self.usage.update(usage)


def record_activity(monkeypatch: pytest.MonkeyPatch) -> ActivityRecorder:
    """Have the runners write into what this returns."""
    recorder = ActivityRecorder()
    monkeypatch.setattr(base, "activity", recorder)
    return recorder
