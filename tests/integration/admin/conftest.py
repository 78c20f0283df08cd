"""Fixtures of the tests of the admin."""

from __future__ import annotations

from uuid import UUID

import pytest

from django_agentexec import task
from tests.support.admin_pages import Message


@pytest.fixture
def answer_task() -> None:
    """The task `answer`, by which users write to an agent."""

    @task("answer", api=True)
    def answer(agent_id: UUID, context: Message) -> str:
        return context.text
