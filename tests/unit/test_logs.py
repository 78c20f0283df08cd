"""Logs: texts of exceptions forge no line and control no terminal, and persistent failures are logged rarely."""

from __future__ import annotations

import io
import logging
from importlib import import_module

import pytest

from django_agentexec import QueueUnavailable
from django_agentexec.activity import streams
from django_agentexec.ids import uuid7
from django_agentexec.logs import EscapeTracebacks, ThrottledLogger
from django_agentexec.queues import get_queue
from django_agentexec.testing import memory_queue
from django_agentexec.validation import escape_controls, one_line

FORGED = "no\n2026-01-01 00:00:00 INFO root: all is well\x1b[2J"


def logged(name: str) -> str:
    """Return what a handler of a project writes of an exception."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger(name)
    logger.addHandler(handler)
    try:
        raise RuntimeError(FORGED)
    except RuntimeError as error:
        logger.error("It failed: %s", one_line(error), exc_info=True)
    finally:
        logger.removeHandler(handler)
    return out.getvalue()


@pytest.mark.parametrize(
    "name", ["worker.executor", "worker.pipeline", "activity.completion_hooks", "tasks.definition", "schedules"]
)
def test_no_line_of_a_traceback_looks_like_a_record(name: str) -> None:
    module = import_module(f"django_agentexec.{name}").__name__

    first, *others = logged(module).splitlines()

    assert first.endswith(r"It failed: RuntimeError: no 2026-01-01 00:00:00 INFO root: all is well\x1b[2J")
    assert others
    assert all(line.startswith("    ") for line in others)
    assert "\x1b" not in "".join(others)


def test_the_exception_itself_is_left_to_other_handlers(caplog: pytest.LogCaptureFixture) -> None:
    logged("django_agentexec.worker.executor")

    (record,) = caplog.records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], RuntimeError)


def test_a_record_without_an_exception_passes() -> None:
    record = logging.LogRecord("x", logging.INFO, "x.py", 1, "text", None, None)

    assert EscapeTracebacks().filter(record)
    assert record.exc_text is None


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a\tb\nc", "a\tb\nc"),
        ("\x1b\x07\x7f", r"\x1b\x07\x7f"),
        ("\x9b1m", r"\x9b1m"),
        ("\u202e\u2028", r"\u202e\u2028"),
        ("\u061c", r"\u061c"),
    ],
)
def test_controls_are_escaped(text: str, escaped: str) -> None:
    assert escape_controls(text) == escaped


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
            streams.stream_text(uuid7(), text, 1)
            assert streams.flush_stream(10)

    assert caplog.messages == ["Dropped streamed text. (QueueUnavailable: No answer.)"]
