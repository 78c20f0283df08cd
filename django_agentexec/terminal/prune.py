"""`agentexec prune --older-than 30d`: delete activities that ended long ago; for cron."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import CommandError
from django.db.models import ProtectedError, RestrictedError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ..activity.pruning import BATCH_SIZE, prune
from ..calls.pruning import prune_calls
from ..exceptions import InvalidOption
from ..models import FINISHED, Activity, ActivityQuerySet
from .arguments import duration, filter_name, positive
from .command import FAILED, OK, Output, Subcommand


class Prune(Subcommand):
    """The deletion of old activities."""

    help = gettext_lazy("delete activities that ended long ago, in batches")
    epilog = gettext_lazy("""
Queued and running activities are never deleted, nor are their calls. The log of an activity is deleted with it; its
children stay, without a parent. Each batch is a transaction, so the command can be stopped and started again at any
time.

exit codes:
  0  done
  1  a database is unavailable, or rows of other tables protect an activity
  2  invalid arguments
""")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""
        age_help = _("minimum time since the end of the activity, such as 90s, 15m, 12h, 30d or 2w")
        calls_help = _("delete only the recorded calls of the activities, and keep the activities")
        parser.add_argument("--calls", action="store_true", help=calls_help)
        parser.add_argument("--older-than", type=duration, required=True, metavar="AGE", help=age_help)
        statuses = [status.value for status in FINISHED]
        parser.add_argument(
            "--status", action="append", choices=statuses, help=_("status of the activity; may be repeated")
        )
        parser.add_argument("--type", type=filter_name, metavar="TASK", help=_("name of the task"))
        size_help = _("rows per transaction (default: %(size)s)") % {"size": BATCH_SIZE}
        parser.add_argument("--batch-size", type=positive, default=BATCH_SIZE, metavar="N", help=size_help)
        parser.add_argument("--dry-run", action="store_true", help=_("count the activities, and delete nothing"))
        json_help = _("print JSON: %(shape)s") % {"shape": '{"deleted": number, "dry_run": boolean}'}
        parser.add_argument("--json", action="store_true", help=json_help)

    def run(self, out: Output, options: dict[str, Any]) -> int:
        """Delete the activities, and write their number."""
        activities: ActivityQuerySet = Activity.objects.all()
        if options["status"]:
            activities = activities.filter(status__in=options["status"])
        if options["type"] is not None:
            activities = activities.of_type(options["type"])
        is_dry, size, total = options["dry_run"], options["batch_size"], 0
        if options["calls"] and (options["status"] or options["type"] is not None):
            raise InvalidOption(_("--calls cannot be combined with --status or --type."))
        batches = (
            prune_calls(options["older_than"], batch_size=size, dry_run=is_dry)
            if options["calls"]
            else prune(options["older_than"], batch_size=size, activities=activities, dry_run=is_dry)
        )
        try:
            for number in batches:
                total += number
                if options["verbosity"] > 1 and number:
                    out.note(_("%(number)s so far") % {"number": f"{total:,}"})
        except (ProtectedError, RestrictedError) as error:
            text = ngettext(
                "Stopped after %(number)s deleted activity: %(reason)s Delete those rows first, or change their "
                "on_delete.",
                "Stopped after %(number)s deleted activities: %(reason)s Delete those rows first, or change their "
                "on_delete.",
                total,
            )
            raise CommandError(text % {"number": f"{total:,}", "reason": error.args[0]}, returncode=FAILED) from error
        if options["json"]:
            out.json({"deleted": total, "dry_run": is_dry})
        else:
            text = _("%(number)s would be deleted.") if is_dry else _("%(number)s deleted.")
            out.write(text % {"number": f"{total:,}"})
        return OK
