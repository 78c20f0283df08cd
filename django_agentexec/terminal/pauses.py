"""`agentexec pause` and `agentexec resume`: pauses of queues, tasks and tenants."""

from __future__ import annotations

import argparse
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..concurrency import pause, resume
from ..concurrency.commands import target_note
from ..models import Pause, PauseScope
from . import times
from .command import OK, Output, Subcommand, account_actor


class PauseCommand(Subcommand):
    """A pause, or the list of pauses."""

    help = gettext_lazy(
        "pause a queue, task or tenant, so that none of its waiting activities starts; without arguments, list the "
        "pauses"
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare scope, name and reason."""
        _add_target(parser, is_optional=True)
        parser.add_argument("--reason", default="", metavar="TEXT", help=_("reason, shown with the pause"))

    def run(self, out: Output, options: dict[str, Any]) -> int:
        """Pause, or list the pauses."""
        if options["scope"] is None:
            _list(out)
            return OK
        target = {"scope": options["scope"], "name": options["name"] or ""}
        if pause(**target, reason=options["reason"], actor=account_actor()):
            out.write(_("Paused %(scope)s %(name)s. Running activities continue.") % target)
        else:
            out.note(_("%(scope)s %(name)s is paused already.") % target)
        if note := target_note(**target):
            out.note(note)
        return OK


class Resume(Subcommand):
    """The end of a pause."""

    help = gettext_lazy("resume a paused queue, task or tenant, so that its activities start again")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare scope and name."""
        _add_target(parser)

    def run(self, out: Output, options: dict[str, Any]) -> int:
        """Resume."""
        target = {"scope": options["scope"], "name": options["name"]}
        if resume(**target):
            out.write(_("Resumed %(scope)s %(name)s.") % target)
        else:
            out.note(_("%(scope)s %(name)s is not paused.") % target)
        return OK


def _add_target(parser: argparse.ArgumentParser, *, is_optional: bool = False) -> None:
    nargs = "?" if is_optional else None
    parser.add_argument("scope", nargs=nargs, choices=PauseScope.values, help=_("kind of the target"))
    name_help = _("name of the queue or task, or metadata of the tenant such as organization_id=7")
    parser.add_argument("name", nargs=nargs, metavar="NAME", help=name_help)


def _list(out: Output) -> None:
    rows: list[list[object]] = [
        [row.scope, row.name, times.date_and_time(row.created_at), row.actor or "", row.reason]
        for row in Pause.objects.all()
    ]
    if rows:
        out.table([_("scope"), _("name"), _("since"), _("by"), _("reason")], rows)
    else:
        out.note(_("Nothing is paused."))
