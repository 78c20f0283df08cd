"""`manage.py prune_activities --older-than 30d`: delete what ended long ago; for cron."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db.models import ProtectedError, RestrictedError

from django_agentexec.activity.pruning import BATCH_SIZE, prune
from django_agentexec.models import FINISHED, Activity, ActivityQuerySet
from django_agentexec.terminal.command import FAILED, OK, Output, TerminalCommand
from django_agentexec.terminal.durations import duration, positive

EPILOG = """
Queued and running activities are never touched. Logs go with their activity; children stay, without a parent.
Each batch is a transaction of its own, so it can be stopped at any time, and started again.

exit codes:
  0  done
  1  a database is away, or rows of other tables protect an activity
  2  wrong arguments
"""


class Command(TerminalCommand):
    """Deletes old activities."""

    help = "Delete activities that ended long ago, in batches."
    epilog = EPILOG

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "--older-than", type=duration, required=True, metavar="AGE", help="since the end: 90s, 15m, 12h, 30d, 2w"
        )
        parser.add_argument(
            "--status",
            action="append",
            choices=[status.value for status in FINISHED],
            help="may be given several times",
        )
        parser.add_argument("--type", metavar="TASK", help="name of the task")
        parser.add_argument(
            "--batch-size", type=positive, default=BATCH_SIZE, metavar="N", help=f"rows per transaction ({BATCH_SIZE})"
        )
        parser.add_argument("--dry-run", action="store_true", help="count, and delete nothing")
        parser.add_argument("--json", action="store_true", help='{"deleted": number, "dry_run": boolean}')

    def run(self, out: Output, options: dict[str, Any]) -> int:
        """Delete, and tell how many."""
        wanted: ActivityQuerySet = Activity.objects.all()
        if options["status"]:
            wanted = wanted.filter(status__in=options["status"])
        if options["type"]:
            wanted = wanted.of_type(options["type"])
        is_dry, total = options["dry_run"], 0
        try:
            for number in prune(
                options["older_than"], batch_size=options["batch_size"], activities=wanted, dry_run=is_dry
            ):
                total += number
                if options["verbosity"] > 1 and number:
                    out.note(f"{total:,} so far")
        except (ProtectedError, RestrictedError) as error:
            raise CommandError(
                f"{total:,} deleted, then stopped: {error.args[0]} Delete those rows first, or change their on_delete.",
                returncode=FAILED,
            ) from error
        if options["json"]:
            out.json({"deleted": total, "dry_run": is_dry})
        else:
            out.write(f"{total:,} {'would be deleted' if is_dry else 'deleted'}.")
        return OK
