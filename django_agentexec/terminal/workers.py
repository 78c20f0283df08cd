"""`agentexec workers` and `agentexec health`: the worker processes, and whether enqueued activities will run."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import monitoring
from ..monitoring import WorkerSchema
from .command import FAILED, OK, Output, Subcommand
from .snapshot import ago, worker_state
from .times import time_span


class Workers(Subcommand):
    """The list of worker processes."""

    help = gettext_lazy("list the worker processes of all pools")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--json", action="store_true", help=_("print JSON in the shape of the REST list"))

    def run(self, out: Output, options: dict[str, Any]) -> int:
        """Write the workers."""
        workers = monitoring.workers()
        if options["json"]:
            out.json([worker.model_dump(mode="json") for worker in workers])
        elif workers:
            header = [_("worker"), _("state"), _("running"), _("slots"), _("done"), _("failed")]
            header += [_("queues"), _("up"), _("last beat")]
            out.table(header, [_row(worker) for worker in workers], right=range(2, 6))
        else:
            out.note(_("No worker sent a heartbeat in the last five minutes. Start a pool: manage.py agentexec run"))
        return OK


class Health(Subcommand):
    """The health check: whether enqueued activities will run."""

    help = gettext_lazy("check database, queue, workers and reconciler; exit with 1 if activities would not run")
    epilog = gettext_lazy("""
exit codes:
  0  all essential checks pass
  1  an essential check fails
""")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--json", action="store_true", help=_("print JSON in the shape of REST"))

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


def _row(worker: WorkerSchema) -> list[object]:
    up = (datetime.now(UTC) - worker.started_at).total_seconds()
    numbers = [worker.running, worker.concurrency, worker.done, worker.failed]
    queues = ",".join(worker.queues)
    return [worker.id, worker_state(worker), *numbers, queues, time_span(up), ago(worker.last_beat_at)]
