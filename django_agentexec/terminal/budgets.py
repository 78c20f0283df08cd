"""`agentexec budgets`: the budgets with what was spent of them; with `--set-limit`, a new limit."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import CommandError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..activity.store import database
from ..budgets.commands import set_limit
from ..budgets.notices import amount_text
from ..budgets.queries import BudgetSchema, consumption, declared_budgets
from ..models import Budget
from .command import NOT_FOUND, OK, Output, Subcommand


class Budgets(Subcommand):
    """The budgets."""

    help = gettext_lazy("show budgets with the amounts spent, or set a limit")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""
        actions = parser.add_mutually_exclusive_group()
        actions.add_argument("--json", action="store_true", help=_("print JSON in the shape of REST"))
        actions.add_argument(
            "--set-limit",
            nargs=2,
            metavar=("ID", "AMOUNT"),
            help=_("set the limit of the budget with this id; waiting activities that fit into it resume"),
        )

    def run(self, out: Output, options: dict[str, Any]) -> int:
        """Write the list, or set a limit."""
        if options["set_limit"]:
            return self._set_limit(out, *options["set_limit"])
        shown = [*consumption(list(Budget.objects.using(database()))), *declared_budgets()]
        if options["json"]:
            out.json([each.model_dump(mode="json") for each in shown])
            return OK
        if not shown:
            out.note(_("There are no budgets. Add them in the admin, or declare them with @task(budget=...)."))
            return OK
        header = [_("id"), _("name"), _("covers"), _("period"), _("limit"), _("spent"), "%", _("waiting"), _("action")]
        out.table(header, [_row(each) for each in shown], right=[0, 4, 5, 6, 7])
        if any(each.id is None for each in shown):
            out.note(_("Budgets without an id are declared in code, and apply to each run."))
        return OK

    def _set_limit(self, out: Output, given: str, amount: str) -> int:
        budget = Budget.objects.using(database()).filter(pk=int(given)).first() if given.isdecimal() else None
        if budget is None:
            text = _("There is no budget %(id)s; agentexec budgets lists them.")
            raise CommandError(text % {"id": given}, returncode=NOT_FOUND)
        set_limit(budget, amount)
        limit = amount_text(budget.limit, budget.unit)
        out.write(_("The limit of %(name)s is %(limit)s.") % {"name": budget.name, "limit": limit})
        return OK


def _row(shown: BudgetSchema) -> list[object]:
    spent = "-" if shown.spent is None else amount_text(shown.spent, shown.unit)
    percentage = "-" if shown.percentage is None else shown.percentage
    action = str(shown.action.label) if shown.is_active else _("inactive")
    limit = amount_text(shown.limit, shown.unit)
    period = shown.current or str(shown.period.label)
    return [
        "-" if shown.id is None else shown.id,
        shown.name,
        _covers(shown),
        period,
        limit,
        spent,
        percentage,
        shown.waiting,
        action,
    ]


def _covers(shown: BudgetSchema) -> str:
    if shown.metadata_key:
        return f"{shown.metadata_key}={shown.metadata_value}"
    return shown.task or (str(shown.agent_id) if shown.agent_id else str(shown.scope.label))
