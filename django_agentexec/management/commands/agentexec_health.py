"""`manage.py agentexec_health`: whether activities that are enqueued now will run; for containers and probes."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from django_agentexec import monitoring
from django_agentexec.terminal.command import FAILED, OK, Output, TerminalCommand

EPILOG = """
exit codes:
  0  all essential checks are well
  1  one of them is not
"""


class Command(TerminalCommand):
    """Checks the health."""

    help = "Check database, queue, workers and reconciler; exit with 1 if activities would not run."
    epilog = EPILOG

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("--json", action="store_true", help="the shape of REST's")

    def run(self, out: Output, options: dict[str, Any]) -> int:
        """Write one line per check."""
        health = monitoring.health()
        if options["json"]:
            out.json(health)
        else:
            for check in health.checks:
                state = "ok  " if check.ok else "FAIL" if check.essential else "warn"
                out.write(f"{state}  {check.name}: {check.detail}")
            for problem in health.problems:
                out.write(f"note  {problem}")
        return OK if health.ok else FAILED
