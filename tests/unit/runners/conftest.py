"""Fixtures of the tests of runners."""

from __future__ import annotations

from uuid import uuid4

import pytest

from django_agentexec import OpenAIRunner
from tests.support.activity_recorder import ActivityRecorder, record_activity


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> ActivityRecorder:
    """What runners report, in place of the database."""
    return record_activity(monkeypatch)


@pytest.fixture
def runner(recorder: ActivityRecorder) -> OpenAIRunner:
    """The runner of an activity."""
    return OpenAIRunner(uuid4())
