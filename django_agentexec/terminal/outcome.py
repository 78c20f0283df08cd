"""`agents result`: what an activity returned, now or when it has ended."""

from __future__ import annotations

import argparse
from typing import Any
from uuid import UUID

from ..activity.store import database
from ..exceptions import ActivityNotFound, ResultError, TaskCanceled, TaskFailed
from ..models import Activity
from ..results import get_result
from .command import FAILED, OK, Output
from .durations import seconds
from .selection import find

HELP = "print the result as JSON; with --timeout, wait for it"
WAIT = 300.0  # seconds; as `get_result`


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare id and timeout."""
    parser.add_argument("id", help="of the activity, or the beginning of one")
    parser.add_argument(
        "--timeout", type=seconds, default=0.0, metavar="TIME", help="seconds, or such as 10m, to wait (0)"
    )


def run(out: Output, options: dict[str, Any]) -> int:
    """Write the result."""
    return answer(out, find(options["id"]), options["timeout"])


def answer(out: Output, agent_id: UUID, timeout: float) -> int:
    """Wait up to `timeout` seconds, and write the result. Raises `TimeoutError`; `FAILED` if it has none."""
    try:
        get_result(agent_id, timeout)
    except (TaskFailed, TaskCanceled) as error:
        out.note(str(error))
        return FAILED
    except ResultError:
        pass  # the task's type has changed since; what is stored can be printed all the same
    row = Activity.objects.using(database()).filter(agent_id=agent_id).values_list("result").first()
    if row is None:
        raise ActivityNotFound(agent_id)
    out.json(row[0])
    return OK
