"""`agentexec run-one`: one attempt of one activity in this process."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from typing import Any
from uuid import UUID

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..models import Activity, Status
from ..pool.single import run_one
from .arguments import add_id, seconds
from .command import FAILED, OK, TIMEOUT, Output, Subcommand
from .selection import find

DEFAULT_TIMEOUT = 10.0  # seconds


class RunOne(Subcommand):
    """One attempt of one activity, for debugging and for schedulers that start a process per activity."""

    help = gettext_lazy("run one attempt of an activity in this process, without a pool")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare id and timeout."""
        add_id(parser)
        help = _("time to wait until it can be claimed: seconds, or a duration such as 10m (%(seconds)s s)")
        help %= {"seconds": f"{DEFAULT_TIMEOUT:g}"}
        parser.add_argument("--timeout", type=seconds, default=DEFAULT_TIMEOUT, metavar="TIME", help=help)

    def run(self, out: Output, options: dict[str, Any]) -> int:
        """Run the activity, and write its status."""
        agent_id, abandoned = find(options["id"]), list[bool]()
        row = run_one(agent_id, options["timeout"], on_abandoned=lambda: abandoned.append(True))
        code = self._report(out, agent_id, row)
        if abandoned:  # Python would wait for the handler, which another worker may run already
            sys.stdout.flush()
            sys.stderr.flush()
            logging.shutdown()
            os._exit(code)
        return code

    def _report(self, out: Output, agent_id: UUID, row: Activity | None) -> int:
        if row is None:
            out.note(
                _(
                    "Activity %(agent_id)s could not be claimed: it runs elsewhere, is not due yet or paused, or waits "
                    "for its lock key or a limit."
                )
                % {"agent_id": agent_id}
            )
            return TIMEOUT
        out.status(row.status, f"{row.status}  {row.latest_log_message}")
        return FAILED if row.status in (Status.ERROR, Status.CANCELED) else OK
