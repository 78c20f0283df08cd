"""The INFO log of a healthy worker: its readiness, and the start and end of each attempt."""

from __future__ import annotations

import logging
import os
import time

from ..activity.suspension import Suspend
from ..activity.transitions import Fail, OwnedOperation, Release
from ..models import Activity, Status
from .executor import Execution
from .options import WorkerOptions

logger = logging.getLogger(__name__)

# What follows the end of an attempt that does not end its activity, by state.
_CONTINUATIONS = {
    "to be retried": "it will be retried",
    "released": "the activity returned to the queue",
    "waiting for others": "the activity waits for others",
}


def log_ready(options: WorkerOptions) -> None:
    """Log that a worker process starts to claim activities."""
    logger.info(
        "Worker %s is ready: process %d, queues %s, slots: %d.",
        options.name,
        os.getpid(),
        ", ".join(options.queues),
        options.concurrency,
        extra={"worker": options.name},
    )


def log_started(activity: Activity) -> None:
    """Log the start of an attempt."""
    if logger.isEnabledFor(logging.INFO):
        extra = {"agent_id": str(activity.agent_id), "task": activity.agent_type, "attempt": activity.attempt}
        logger.info("Started %s %s.", activity.agent_type, activity.agent_id, extra=extra)


def log_finished(execution: Execution, outcome: OwnedOperation | None, written: Activity | None) -> None:
    """Log the end of an attempt and the state of its row; `written` is None if the attempt wrote no end."""
    if not logger.isEnabledFor(logging.INFO):
        return
    activity, duration = execution.activity, time.monotonic() - execution.began
    state = "stopped" if written is None else _state(outcome, written)
    if state in _CONTINUATIONS:
        text = f"Ended an attempt of %s %s after %.2f s; {_CONTINUATIONS[state]}."
    else:
        text = f"Finished %s %s: {state} after %.2f s."
    logger.info(
        text,
        activity.agent_type,
        activity.agent_id,
        duration,
        extra={
            "agent_id": str(activity.agent_id),
            "task": activity.agent_type,
            "attempt": activity.attempt,
            "duration": round(duration, 6),
            "state": state,
        },
    )


def _state(outcome: OwnedOperation | None, written: Activity) -> str:
    match outcome:
        case Release() if written.status == Status.QUEUED:
            return "released"
        case Suspend():
            return "waiting for others"
        case Fail() if written.status == Status.QUEUED:
            return "to be retried"
    return str(written.status)
