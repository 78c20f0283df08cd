"""`agentexec result`: the result of an activity, now or when it has ended."""

from __future__ import annotations

import argparse
from typing import Any
from uuid import UUID

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..activity.store import database
from ..exceptions import ActivityNotFound, ResultError, TaskCanceled, TaskFailed
from ..models import Activity
from ..results import get_result
from .arguments import add_id, seconds
from .command import FAILED, OK, Output, Subcommand
from .selection import find

DEFAULT_TIMEOUT = 300.0  # seconds, as for `get_result`


class Result(Subcommand):
    """The result of an activity."""

    help = gettext_lazy("print the result of an activity as JSON; with --timeout, wait for its end")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare id and timeout."""
        add_id(parser)
        help = _("time to wait: seconds, or a duration such as 10m (default: 0)")
        parser.add_argument("--timeout", type=seconds, default=0.0, metavar="TIME", help=help)

    def run(self, out: Output, options: dict[str, Any]) -> int:
        """Write the result."""
        return write_result(out, find(options["id"]), options["timeout"])


def write_result(out: Output, agent_id: UUID, timeout: float) -> int:
    """Wait up to `timeout` seconds, write the result and return the exit code. Raises `TimeoutError`."""
    try:
        get_result(agent_id, timeout)
    except (TaskFailed, TaskCanceled) as error:
        out.note(str(error))
        return FAILED
    except ResultError:
        pass  # the return type of the task has changed; the stored JSON can still be printed
    row = Activity.objects.using(database()).filter(agent_id=agent_id).values_list("result").first()
    if row is None:
        raise ActivityNotFound(agent_id)
    out.json(row[0])
    return OK
