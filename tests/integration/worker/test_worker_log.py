"""What a worker logs of an attempt, with `extra` for structured logs."""

from __future__ import annotations

import logging
import re
from uuid import UUID

import pytest

from django_agentexec import Status
from django_agentexec.activity.suspension import Suspend
from django_agentexec.activity.transitions import Complete, Fail, OwnedOperation, Release
from django_agentexec.models import Activity
from django_agentexec.queues import Claim
from django_agentexec.worker.executor import Execution
from django_agentexec.worker.lifecycle_log import log_finished, log_started
from tests.unit.worker.test_executor import PlainCalls, write

ID = UUID(int=7)


def row(status: str = Status.RUNNING) -> Activity:
    return Activity(agent_id=ID, agent_type="research", attempt=2, status=status)


def test_a_start_is_logged_with_id_task_and_attempt(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "django_agentexec")

    log_started(row())

    (record,) = caplog.records
    assert record.message == f"Started research {ID}."
    assert (record.__dict__["agent_id"], record.__dict__["task"], record.__dict__["attempt"]) == (
        str(ID),
        "research",
        2,
    )


@pytest.mark.parametrize(
    ("outcome", "status", "state"),
    [
        (Complete(agent_id=ID), Status.COMPLETE, "complete"),
        (Fail(agent_id=ID, error="no"), Status.ERROR, "error"),
        (None, None, "stopped"),
    ],
)
def test_an_end_is_logged_with_its_state_and_duration(
    outcome: OwnedOperation | None, status: str | None, state: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "django_agentexec")
    execution = Execution(Claim(ID, 1, 0, "default", ""), row(), write, PlainCalls())

    log_finished(execution, outcome, row(status) if status else None)

    (record,) = caplog.records
    assert record.message.startswith(f"Finished research {ID}: {state} after ")
    assert record.__dict__["state"] == state
    assert record.__dict__["duration"] >= 0


@pytest.mark.parametrize(
    ("outcome", "status", "state", "continuation"),
    [
        (Fail(agent_id=ID, error="no", retry_delay=1.0), Status.QUEUED, "to be retried", "it will be retried"),
        (Release(agent_id=ID), Status.QUEUED, "released", "the activity returned to the queue"),
        (
            Suspend(agent_id=ID, awaited_ids=[]),
            Status.RUNNING,
            "waiting for others",
            "the activity waits for others",
        ),
    ],
)
def test_an_attempt_that_does_not_end_its_activity_is_logged_as_such(
    outcome: OwnedOperation, status: str, state: str, continuation: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "django_agentexec")
    execution = Execution(Claim(ID, 1, 0, "default", ""), row(), write, PlainCalls())

    log_finished(execution, outcome, row(status))

    (record,) = caplog.records
    assert re.fullmatch(rf"Ended an attempt of research {ID} after \d+\.\d\d s; {continuation}\.", record.message)
    assert record.__dict__["state"] == state


def test_nothing_is_logged_below_info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "django_agentexec")

    log_started(row())

    assert caplog.records == []
