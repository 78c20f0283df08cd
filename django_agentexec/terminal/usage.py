"""`agentexec usage`: tokens and cost of a period; with `--reprice`, prices for calls that have none."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import CommandError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ..costs.library import missing_library
from ..costs.period import Period, zone_of
from ..costs.reprice import BATCH_SIZE, reprice
from ..costs.runs import MAX_RUNS, ExpensiveRunSchema, expensive_runs, reasons_of
from ..costs.usage import ReportGroupSchema, ReportTotalsSchema, UsageReportSchema, calls_of, usage_csv, usage_report
from ..models import Activity, ActivityQuerySet
from ..money import dollars
from .arguments import add_metadata, day, positive
from .command import OK, USAGE, Output, Subcommand
from .selection import with_metadata

RUNS = 10  # that --runs lists by default


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
        by_help = _("group by day, task, model or metadata.KEY (default: day)")
        parser.add_argument("--by", metavar="GROUP", help=by_help)
        parser.add_argument(
            "--from", type=day, metavar="DAY", help=_("first day (default: 27 days before the last day)")
        )
        parser.add_argument("--to", type=day, metavar="DAY", help=_("last day, included (default: today)"))
        parser.add_argument(
            "--time-zone", metavar="NAME", help=_("time zone of the days (default: the setting TIME_ZONE)")
        )
        add_metadata(parser, _("only activities with this entry of the metadata; may be repeated"))
        runs_help = _(
            "list the N most expensive activities with the reasons for their cost, instead of groups "
            "(default: %(most)s)"
        )
        parser.add_argument(
            "--runs", type=positive, nargs="?", const=RUNS, metavar="N", help=runs_help % {"most": RUNS}
        )
        outputs = parser.add_mutually_exclusive_group()
        outputs.add_argument("--csv", action="store_true", help=_("print CSV"))
        outputs.add_argument("--json", action="store_true", help=_("print JSON in the shape of REST"))
        outputs.add_argument(
            "--reprice", action="store_true", help=_("calculate the cost of all past calls that have none")
        )
        size_help = _("calls per transaction of --reprice (default: %(size)s)") % {"size": BATCH_SIZE}
        parser.add_argument("--batch-size", type=positive, metavar="N", help=size_help)

    def run(self, out: Output, options: dict[str, Any]) -> int:
        """Write the report, or price calls."""
        if options["reprice"]:
            return self._reprice(out, options)
        if options["batch_size"] is not None:
            raise CommandError(_("--batch-size requires --reprice."), returncode=USAGE)
        zone = zone_of(options["time_zone"]) if options["time_zone"] is not None else None
        period = Period.of(options["from"], options["to"], zone)
        activities = with_metadata(Activity.objects.all(), options)
        if options["runs"] is not None:
            if options["by"] is not None:
                raise CommandError(_("--runs lists single runs, without groups; leave --by out."), returncode=USAGE)
            return self._runs(out, activities, period, options)
        report = usage_report(activities, period, options["by"] or "day")
        if options["csv"]:
            out.write(usage_csv(report).replace("\r\n", "\n").rstrip("\n"))
            return OK
        if options["json"]:
            out.json(report.model_dump(mode="json", by_alias=True))
            return OK
        if report.groups:
            header = [
                report.group_by,
                _("runs"),
                _("calls"),
                _("input"),
                _("cached"),
                _("output"),
                _("cost"),
                _("median"),
            ]
            rows = [[group.key or "-", *_cells(group)] for group in report.groups]
            out.table(header, [*rows, [_("total"), *_cells(report.totals)]], right=range(1, 8))
        _note_period(out, period)
        _note_totals(out, report)
        return OK

    def _runs(self, out: Output, activities: ActivityQuerySet, period: Period, options: dict[str, Any]) -> int:
        found = expensive_runs(activities, calls_of(activities, period), min(options["runs"], MAX_RUNS))
        runs = [run for _activity, run in found]
        if options["json"]:
            out.json([run.model_dump(mode="json") for run in runs])
            return OK
        if options["csv"]:
            raise CommandError(_("--runs has no CSV; give --json, or leave --csv out."), returncode=USAGE)
        if runs:
            header = [_("id"), _("task"), _("cost"), _("calls"), _("tokens"), _("models"), _("reasons")]
            out.table(header, [_run(run) for run in runs], right=(2, 3, 4))
        else:
            out.note(_("No run has a known cost."))
        _note_period(out, period)
        return OK

    def _reprice(self, out: Output, options: dict[str, Any]) -> int:
        named = ("by", "from", "to", "time_zone", "metadata", "runs")
        given = [name for name in named if options[name] is not None]
        if given:
            name = f"--{given[0].replace('_', '-')}"
            text = _("--reprice prices calls of all times; leave %(name)s out.")
            raise CommandError(text % {"name": name}, returncode=USAGE)
        examined = priced = 0
        for found, written in reprice(batch_size=options["batch_size"] or BATCH_SIZE):
            examined, priced = examined + found, priced + written
            if options["verbosity"] > 1:
                out.note(_("%(number)s so far") % {"number": f"{examined:,}"})
        text = ngettext(
            "%(priced)s of %(examined)s calls without a price was priced.",
            "%(priced)s of %(examined)s calls without a price were priced.",
            priced,
        )
        out.write(text % {"priced": f"{priced:,}", "examined": f"{examined:,}"})
        return OK


def _note_totals(out: Output, report: UsageReportSchema) -> None:
    """Write what the table does not show: savings, and what its sums leave out."""
    if report.totals.replayed_cost:
        text = _("Replays have saved %(cost)s: calls that later attempts have read instead of making them again.")
        out.note(text % {"cost": dollars(report.totals.replayed_cost)})
    if report.has_more_groups:
        out.note(_("There are more groups; the total includes them."))
    if report.totals.unrecorded_runs:
        runs, cost = report.totals.unrecorded_runs, report.totals.unrecorded_cost
        text = ngettext(
            "%(runs)s further run without recorded calls cost %(cost)s.",
            "%(runs)s further runs without recorded calls cost %(cost)s.",
            runs,
        )
        out.note(text % {"runs": f"{runs:,}", "cost": dollars(cost)})
    if report.totals.unpriced_calls:
        calls, tokens = report.totals.unpriced_calls, report.totals.unpriced_tokens
        text = ngettext(
            "%(calls)s call with %(tokens)s tokens has no price and is missing in the cost.",
            "%(calls)s calls with %(tokens)s tokens have no price and are missing in the cost.",
            calls,
        )
        out.note(text % {"calls": f"{calls:,}", "tokens": f"{tokens:,}"})
        if hint := missing_library():
            out.note(hint)


def _note_period(out: Output, period: Period) -> None:
    text = _("From %(first)s to %(last)s, %(zone)s.")
    out.note(text % {"first": period.first, "last": period.last, "zone": period.zone})


def _run(run: ExpensiveRunSchema) -> list[object]:
    tokens = run.input_tokens + run.output_tokens
    models, reasons = ", ".join(run.models), "; ".join(reasons_of(run))
    return [run.agent_id, run.agent_type, dollars(run.cost), f"{run.calls:,}", f"{tokens:,}", models, reasons]


def _cells(sums: ReportGroupSchema | ReportTotalsSchema) -> list[object]:
    if sums.cost is None:
        cost = _("unpriced")
    else:
        cost = dollars(sums.cost) + (f" + {_('unpriced')}" if sums.unpriced_calls else "")
    counts = (sums.runs, sums.calls, sums.input_tokens, sums.cached_tokens, sums.output_tokens)
    return [*(f"{count:,}" for count in counts), cost, "-" if sums.median_cost is None else dollars(sums.median_cost)]
