"""`manage.py agentworkers`: the worker processes, as their last heartbeats told."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.core.management.base import CommandParser

from django_agentexec import monitoring
from django_agentexec.monitoring import WorkerSchema
from django_agentexec.terminal.command import OK, Output, TerminalCommand
from django_agentexec.terminal.text import age

HEADER = ["worker", "state", "running", "slots", "done", "failed", "queues", "up", "last beat"]


class Command(TerminalCommand):
    """Lists the workers."""

    help = "List the worker processes of all pools."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("--json", action="store_true", help="a list in the shape of REST's")

    def run(self, out: Output, options: dict[str, Any]) -> int:
        """Write the workers."""
        workers = monitoring.workers()
        if options["json"]:
            out.json([worker.model_dump(mode="json") for worker in workers])
        elif workers:
            out.table(HEADER, [_row(worker) for worker in workers], right="running slots done failed")
        else:
            out.note("No worker has been seen in the last five minutes. Start manage.py runagentworkers.")
        return OK


def _row(worker: WorkerSchema) -> list[object]:
    now = datetime.now(UTC)  # as the beats, also where USE_TZ is off
    state = "silent" if not worker.is_alive else "quarantine" if worker.quarantine else "alive"
    up, beat = ((now - moment).total_seconds() for moment in (worker.started_at, worker.last_beat_at))
    numbers = [worker.running, worker.concurrency, worker.done, worker.failed]
    return [worker.id, state, *numbers, ",".join(worker.queues), age(up), f"{age(beat)} ago"]
