"""`agentexec run-one`: one attempt of one activity in this process."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
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
SIGNALED = 128
"""The exit code of a shell for a program that a signal has ended is the number of the signal plus this."""


class RunOne(Subcommand):
    """One attempt of one activity, for debugging and for schedulers that start a process per activity."""

    help = gettext_lazy("run one attempt of an activity in this process, without a pool")
    epilog = gettext_lazy("""
exit codes:
  0    complete; or queued again for a retry; or suspended, such as for its children or a decision
  1    the activity failed or was canceled, or a server is unavailable
  2    invalid arguments
  3    the activity does not exist
  124  the activity could not be claimed within the timeout
  130  Ctrl-C (143: SIGTERM) before the end of the activity, which is in the queue and waits for a worker
""")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare id and timeout."""
        add_id(parser)
        help = _(
            "time to wait until the activity can be claimed: seconds, or a duration such as 10m; 0 tries once "
            "(default: %(seconds)s s)"
        )
        help %= {"seconds": f"{DEFAULT_TIMEOUT:g}"}
        parser.add_argument("--timeout", type=seconds, default=DEFAULT_TIMEOUT, metavar="TIME", help=help)

    def run(self, out: Output, options: dict[str, Any]) -> int:
        """Run the activity, and write its status."""
        agent_id, abandoned, signals = find(options["id"]), list[bool](), list[signal.Signals]()
        try:
            row = run_one(
                agent_id,
                options["timeout"],
                on_signal=signals.append,
                on_abandoned=lambda: abandoned.append(True),
            )
            code = self._report(out, agent_id, row, signals)
        except KeyboardInterrupt:  # before the worker has its handlers of signals, or after its end
            out.note(_("Interrupted."))
            code = SIGNALED + signal.SIGINT
        if abandoned:  # Python would wait for the handler, which another worker may run already
            sys.stdout.flush()
            sys.stderr.flush()
            logging.shutdown()
            os._exit(code)
        return code

    def _report(self, out: Output, agent_id: UUID, row: Activity | None, signals: Sequence[signal.Signals]) -> int:
        if signals and (row is None or row.status == Status.QUEUED):
            if row is None:
                text = _("Interrupted before activity %(agent_id)s could be claimed.")
            else:
                text = _("Interrupted. Activity %(agent_id)s was returned to the queue, and waits for a worker.")
            out.note(text % {"agent_id": agent_id})
            return SIGNALED + signals[-1]
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
