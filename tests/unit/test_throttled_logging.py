"""Complaints about what keeps failing."""

from __future__ import annotations

import logging
from uuid import uuid4

import pytest

from django_agentexec import QueueUnavailable
from django_agentexec.activity import streams
from django_agentexec.queues import get_queue
from django_agentexec.testing import memory_queue
from django_agentexec.throttled_logging import ThrottledLogger


@pytest.fixture
def throttled() -> ThrottledLogger:
    return ThrottledLogger(logging.getLogger("django_agentexec.test"))


def test_the_same_is_said_once(throttled: ThrottledLogger, caplog: pytest.LogCaptureFixture) -> None:
    for text in ("No store.", "No layer.", "No store."):
        throttled.warn(text, OSError("refused"))

    assert caplog.messages == ["No store. (OSError: refused)", "No layer. (OSError: refused)"]


def test_and_again_after_a_while(
    throttled: ThrottledLogger, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ThrottledLogger, "INTERVAL", 0.0)
    for _ in range(2):
        throttled.warn("No store.", OSError("refused"))

    assert len(caplog.messages) == 2


def test_text_that_cannot_be_kept_is_complained_of_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise QueueUnavailable("No answer.")

    monkeypatch.setattr(streams, "throttled", ThrottledLogger(streams.logger))
    with memory_queue():
        monkeypatch.setattr(type(get_queue().live), "append", refuse)
        for text in ("one", "two"):
            streams.stream_text(uuid4(), text, 1)
            assert streams.flush_stream(10)

    assert caplog.messages == ["Dropped streamed text. (QueueUnavailable: No answer.)"]
