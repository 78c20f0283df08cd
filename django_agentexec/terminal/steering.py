"""`agents cancel` and `agents retry`: for the ids that are named, or for all that match the filters."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from .. import activity
from ..activity import BulkOutcome
from ..activity.store import database
from ..conf import conf
from ..exceptions import InvalidOption, InvalidTransition
from ..models import ACTIVE, Activity, ActivityQuerySet, Status
from ..tasks import registry
from .command import FAILED, OK, Output
from .enqueuing import context_of, read_text
from .selection import add_filters, find, selected
from .users import account


class Steering:
    """One verb. `possible` are the statuses in which it can be done, `done` is its past tense."""

    def __init__(
        self,
        name: str,
        done: str,
        possible: Sequence[Status],
        change: Callable[[ActivityQuerySet], BulkOutcome],
        *,
        takes_context: bool = False,
    ) -> None:
        self.name, self.done, self.possible, self.change = name, done, possible, change
        self.takes_context = takes_context
        self.HELP = f"{name} activities, by id or --all that match the filters"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare ids, filters and options."""
        parser.add_argument("ids", nargs="*", metavar="id", help="of an activity, or the beginning of one")
        states = " or ".join(self.possible)
        parser.add_argument("--all", action="store_true", help=f"all that are {states} and match the filters")
        parser.add_argument("--yes", action="store_true", help="do not ask")
        parser.add_argument("--json", action="store_true", help='{"done": [ids], "refused": {reason: number}}')
        if self.takes_context:
            parser.add_argument(
                "--context",
                metavar="JSON",
                help="in place of the stored one, of one id; `-` reads stdin, `@file` a file",
            )
        add_filters(parser)

    def run(self, out: Output, options: dict[str, Any]) -> int:
        """Ask, do it, and tell what became of it. Returns `FAILED` if one was refused."""
        if options.get("context") is not None:
            return self._with_context(out, options)
        wanted = self._wanted(options)
        count = wanted.bounded_count(conf.COUNT_LIMIT + 1)
        if count and not options["yes"] and not self._confirmed(count):
            out.note("Nothing was changed.")
            return FAILED
        with activity.acting_as(account()):
            outcome = self.change(wanted) if count else BulkOutcome()
        return self._answer(out, options, outcome)

    def _answer(self, out: Output, options: dict[str, Any], outcome: BulkOutcome) -> int:
        if options["json"]:
            out.json({"done": [str(one) for one in outcome.done], "refused": dict(outcome.refused)})
        else:
            self._tell(out, outcome)
        return FAILED if outcome.refused else OK

    def _with_context(self, out: Output, options: dict[str, Any]) -> int:
        """Retry the one activity that is named, with another context."""
        if len(options["ids"]) != 1 or options["all"]:
            raise InvalidOption("A context goes with one id.")
        agent_id = find(options["ids"][0])
        row = Activity.objects.using(database()).only("agent_id", "agent_type").get(agent_id=agent_id)
        context = context_of(registry.get(row.agent_type), read_text(options["context"]))
        if not options["yes"] and not self._confirmed(1):
            out.note("Nothing was changed.")
            return FAILED
        outcome = BulkOutcome()
        try:
            with activity.acting_as(account()):
                activity.retry(agent_id, context=context)
            outcome.done.append(agent_id)
        except InvalidTransition as refusal:
            outcome.refused[refusal.reason] += 1
        return self._answer(out, options, outcome)

    def _wanted(self, options: dict[str, Any]) -> ActivityQuerySet:
        has_filters = any(options[name] for name in ("status", "type", "queue", "metadata"))
        if options["all"] == bool(options["ids"]):
            raise InvalidOption(f"Name the activities to {self.name}, or give --all, with filters if you like.")
        if options["ids"]:
            if has_filters:
                raise InvalidOption("Filters go with --all, not with ids.")
            ids: set[UUID] = {find(text) for text in options["ids"]}
            return Activity.objects.using(database()).filter(agent_id__in=ids)
        wanted = selected(options)
        # Unless asked for, those for which it is too late are not worth a word.
        return wanted if options["status"] else wanted.filter(status__in=self.possible)

    def _confirmed(self, count: int) -> bool:
        if not sys.stdin.isatty():
            raise InvalidOption(f"This would {self.name} {_number(count)}; nobody is here to ask, so add --yes.")
        sys.stderr.write(f"{self.name.capitalize()} {_number(count)}? [y/N] ")
        sys.stderr.flush()
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    def _tell(self, out: Output, outcome: BulkOutcome) -> None:
        out.write(f"{len(outcome.done):,} {self.done}.")
        for reason, number in outcome.refused.most_common():
            out.write(f"{number:,} not: {reason}.")


def _number(count: int) -> str:
    if count > conf.COUNT_LIMIT:
        return f"more than {conf.COUNT_LIMIT:,} activities"
    return f"{count:,} {'activity' if count == 1 else 'activities'}"


CANCEL = Steering("cancel", "canceled", ACTIVE, lambda activities: activity.cancel_many(activities))
RETRY = Steering(
    "retry",
    "queued again",
    (Status.ERROR, Status.CANCELED),
    lambda activities: activity.retry_many(activities),
    takes_context=True,
)
