"""`agentexec cancel` and `agentexec retry`: change activities by id, or all that match the filters."""

from __future__ import annotations

import argparse
import sys
from abc import abstractmethod
from typing import Any, ClassVar

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .. import activity
from ..activity import BulkOutcome
from ..activity.bulk import reason_text
from ..activity.store import database
from ..conf import conf
from ..exceptions import InvalidOption, InvalidTransition
from ..models import ACTIVE, Activity, ActivityQuerySet, Status
from ..tasks import registry
from .arguments import add_filters
from .command import FAILED, OK, Output, Subcommand, account_actor
from .enqueue import parse_context, read_text
from .selection import find, has_filters, select


class Action(Subcommand):
    """A change of many activities, after a confirmation."""

    possible: ClassVar[tuple[Status, ...]]
    """The statuses in which an activity can be changed in this way."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare ids, filters and options."""
        parser.add_argument("ids", nargs="*", metavar="id", help=_("id of an activity, or its first digits"))
        all_help = _("all activities that match the filters; without --status, those with status %(statuses)s")
        parser.add_argument("--all", action="store_true", help=all_help % {"statuses": ", ".join(self.possible)})
        json_help = _("print JSON: %(shape)s") % {"shape": '{"done": [ids], "refused": {reason: number}}'}
        parser.add_argument("--yes", action="store_true", help=_("do not ask for confirmation"))
        parser.add_argument("--json", action="store_true", help=json_help)
        add_filters(parser)

    @abstractmethod
    def apply(self, activities: ActivityQuerySet) -> BulkOutcome:
        """Change all of `activities`."""

    @abstractmethod
    def question(self, count: int) -> str:
        """Return the question that confirms a change of `count` activities."""

    @abstractmethod
    def summary(self, count: int) -> str:
        """Return the report on `count` changed activities."""

    def run(self, out: Output, options: dict[str, Any]) -> int:
        """Ask for confirmation, change the activities and report; `FAILED` if a change was refused."""
        activities = self._select(options)
        count = activities.bounded_count(conf.COUNT_LIMIT + 1)
        if count and not (options["yes"] or self.is_confirmed(count)):
            out.note(_("Nothing was changed."))
            return FAILED
        with activity.acting_as(account_actor()):
            outcome = self.apply(activities) if count else BulkOutcome()
        return self.report(out, options, outcome)

    def report(self, out: Output, options: dict[str, Any], outcome: BulkOutcome) -> int:
        """Write the outcome, and return the exit code."""
        if options["json"]:
            out.json({"done": [str(agent_id) for agent_id in outcome.done], "refused": dict(outcome.refused)})
        else:
            out.write(self.summary(len(outcome.done)))
            for reason, number in outcome.refused.most_common():
                out.write(
                    _("%(number)s refused: %(reason)s.") % {"number": f"{number:,}", "reason": reason_text(reason)}
                )
        return FAILED if outcome.refused else OK

    def is_confirmed(self, count: int) -> bool:
        """Ask on the terminal. Raises `InvalidOption` where stdin is not a terminal."""
        question = self.question(count)
        if not sys.stdin.isatty():
            message = _("%(question)s Standard input is not a terminal: add --yes to confirm.")
            raise InvalidOption(message % {"question": question})
        sys.stderr.write(f"{question} [y/N] ")
        sys.stderr.flush()
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    def _select(self, options: dict[str, Any]) -> ActivityQuerySet:
        if options["all"] == bool(options["ids"]):
            raise InvalidOption(_("Give either ids, or --all with optional filters."))
        if options["ids"]:
            if has_filters(options):
                raise InvalidOption(_("Filters require --all; they do not apply to ids."))
            return Activity.objects.using(database()).filter(agent_id__in={find(text) for text in options["ids"]})
        activities = select(options)
        # Activities that cannot be changed any more are not reported as refused, unless --status selects them.
        return activities if options["status"] else activities.filter(status__in=self.possible)


class Cancel(Action):
    """The cancellation of activities."""

    help = gettext_lazy("cancel activities by id or, with --all, those that match the filters")
    possible = ACTIVE

    def apply(self, activities: ActivityQuerySet) -> BulkOutcome:
        """Cancel the activities."""
        return activity.cancel_many(activities)

    def question(self, count: int) -> str:
        """Return the question."""
        if count > conf.COUNT_LIMIT:
            return _("Cancel more than %(count)s activities?") % {"count": f"{conf.COUNT_LIMIT:,}"}
        text = ngettext("Cancel %(count)s activity?", "Cancel %(count)s activities?", count)
        return text % {"count": f"{count:,}"}

    def summary(self, count: int) -> str:
        """Return the report."""
        return ngettext("%(count)s canceled.", "%(count)s canceled.", count) % {"count": f"{count:,}"}


class Retry(Action):
    """The retry of activities."""

    help = gettext_lazy("retry activities by id or, with --all, those that match the filters")
    possible = (Status.ERROR, Status.CANCELED)
    _is_fresh = False

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments of an action, and the context."""
        super().add_arguments(parser)
        fresh_help = _("make the calls of models and tools again, instead of replaying recorded calls")
        parser.add_argument("--fresh", action="store_true", help=fresh_help)
        help = _("JSON in place of the stored context of one activity; `-` reads it from stdin, `@FILE` from a file")
        parser.add_argument("--context", metavar="JSON", help=help)

    def run(self, out: Output, options: dict[str, Any]) -> int:
        """Retry the activities, or one activity with another context."""
        self._is_fresh = options["fresh"]
        return super().run(out, options) if options["context"] is None else self._retry_with_context(out, options)

    def _retry_with_context(self, out: Output, options: dict[str, Any]) -> int:
        if len(options["ids"]) != 1 or options["all"]:
            raise InvalidOption(_("--context requires exactly one id."))
        agent_id = find(options["ids"][0])
        row = Activity.objects.using(database()).only("agent_id", "agent_type").get(agent_id=agent_id)
        context = parse_context(registry.get(row.agent_type), read_text(options["context"]))
        if not (options["yes"] or self.is_confirmed(1)):
            out.note(_("Nothing was changed."))
            return FAILED
        outcome = BulkOutcome()
        try:
            with activity.acting_as(account_actor()):
                activity.retry(agent_id, context=context, fresh=options["fresh"])
            outcome.done.append(agent_id)
        except InvalidTransition as refusal:
            outcome.refused[refusal.reason] += 1
        return self.report(out, options, outcome)

    def apply(self, activities: ActivityQuerySet) -> BulkOutcome:
        """Retry the activities."""
        return activity.retry_many(activities, fresh=self._is_fresh)

    def question(self, count: int) -> str:
        """Return the question."""
        if count > conf.COUNT_LIMIT:
            return _("Retry more than %(count)s activities?") % {"count": f"{conf.COUNT_LIMIT:,}"}
        text = ngettext("Retry %(count)s activity?", "Retry %(count)s activities?", count)
        return text % {"count": f"{count:,}"}

    def summary(self, count: int) -> str:
        """Return the report."""
        return ngettext("%(count)s queued again.", "%(count)s queued again.", count) % {"count": f"{count:,}"}
