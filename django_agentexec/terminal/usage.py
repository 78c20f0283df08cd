"""`agentexec usage`: tokens and cost of a period; with `--reprice`, prices for calls that have none."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import CommandError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..costs.library import missing_library
from ..costs.period import Period, zone_of
from ..costs.reprice import BATCH_SIZE, reprice
from ..costs.spreadsheet import usage_csv
from ..costs.usage import UsageSchema, usage_report
from ..models import Activity
from ..money import plain
from .arguments import day, positive
from .command import OK, USAGE, Output, Subcommand


class Usage(Subcommand):
    """The usage of all activities."""

    help = gettext_lazy("show tokens and cost by day, task, model or metadata")
    epilog = gettext_lazy("""
Calls of models count for the day on which they started, in all attempts. A cost is "unpriced" if no price of the model
is known: set one in the admin (model prices), and run `usage --reprice` to price past calls from its first day on.

exit codes:
  0  done
  1  a database is unavailable
  2  invalid arguments
""")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""
        by_help = _("day, task, model or metadata.KEY (day)")
        parser.add_argument("--by", default="day", metavar="GROUP", help=by_help)
        parser.add_argument("--from", type=day, metavar="DAY", help=_("first day (27 days before the last day)"))
        parser.add_argument("--to", type=day, metavar="DAY", help=_("last day, included (today)"))
        parser.add_argument("--time-zone", metavar="NAME", help=_("time zone of the days (Django's)"))
        outputs = parser.add_mutually_exclusive_group()
        outputs.add_argument("--csv", action="store_true", help=_("print CSV"))
        outputs.add_argument("--json", action="store_true", help=_("print JSON in the shape of REST"))
        outputs.add_argument("--reprice", action="store_true", help=_("price the calls of all times without a price"))
        size_help = _("calls per transaction of --reprice (%(size)s)") % {"size": BATCH_SIZE}
        parser.add_argument("--batch-size", type=positive, default=BATCH_SIZE, metavar="N", help=size_help)

    def run(self, out: Output, options: dict[str, Any]) -> int:
        """Write the report, or price calls."""
        if options["reprice"]:
            return self._reprice(out, options)
        zone = zone_of(options["time_zone"]) if options["time_zone"] is not None else None
        period = Period.of(options["from"], options["to"], zone)
        report = usage_report(Activity.objects.all(), period, options["by"])
        if options["csv"]:
            out.write(usage_csv(report).replace("\r\n", "\n").rstrip("\n"))
            return OK
        if options["json"]:
            out.json(report.model_dump(mode="json", by_alias=True))
            return OK
        if report.groups:
            header = [report.group_by, _("runs"), _("calls"), _("input"), _("cached"), _("output"), _("cost in $")]
            rows = [[group.key or "-", *_cells(group)] for group in report.groups]
            out.table(header, [*rows, [_("total"), *_cells(report.totals)]], right=range(1, 7))
        text = _("From %(first)s to %(last)s, %(zone)s.")
        out.note(text % {"first": report.first, "last": report.last, "zone": report.time_zone})
        if report.has_more_groups:
            out.note(_("There are more groups; the total includes them."))
        if report.totals.unpriced_calls:
            text = _("%(calls)s calls with %(tokens)s tokens have no price and are missing in the cost.")
            calls, tokens = report.totals.unpriced_calls, report.totals.unpriced_tokens
            out.note(text % {"calls": f"{calls:,}", "tokens": f"{tokens:,}"})
            if hint := missing_library():
                out.note(hint)
        return OK

    def _reprice(self, out: Output, options: dict[str, Any]) -> int:
        given = [name for name in ("from", "to", "time_zone") if options[name] is not None]
        if given:
            name = f"--{given[0].replace('_', '-')}"
            text = _("--reprice prices calls of all times; leave %(name)s out.")
            raise CommandError(text % {"name": name}, returncode=USAGE)
        examined = priced = 0
        for found, written in reprice(batch_size=options["batch_size"]):
            examined, priced = examined + found, priced + written
            if options["verbosity"] > 1:
                out.note(_("%(number)s so far") % {"number": f"{examined:,}"})
        text = _("%(priced)s of %(examined)s calls without a price were priced.")
        out.write(text % {"priced": f"{priced:,}", "examined": f"{examined:,}"})
        return OK


def _cells(sums: UsageSchema) -> list[object]:
    if sums.cost is None:
        cost = _("unpriced")
    else:
        cost = plain(sums.cost) + (f" + {_('unpriced')}" if sums.unpriced_calls else "")
    counts = (sums.runs, sums.calls, sums.input_tokens, sums.cached_tokens, sums.output_tokens)
    return [*(f"{count:,}" for count in counts), cost]
