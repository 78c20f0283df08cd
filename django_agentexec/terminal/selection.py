"""Which activities a command is about: an id, the beginning of one, or filters."""

from __future__ import annotations

import argparse
import json
import re
from typing import Any
from uuid import UUID

from ..activity.store import database
from ..exceptions import ActivityNotFound, InvalidOption
from ..ids import HEX_DIGITS, id_range
from ..models import Activity, ActivityQuerySet, Status

_NAMED = 3  # candidates that an ambiguous beginning is answered with


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Declare the filters; all that are given must hold."""
    group = parser.add_argument_group("filters")
    group.add_argument("--status", action="append", choices=Status.values, help="may be given several times")
    group.add_argument("--type", metavar="TASK", help="name of the task")
    group.add_argument("--queue", metavar="NAME")
    add_metadata(group, "a value of the metadata; may be given several times")


def add_metadata(parser: argparse._ActionsContainer, help: str) -> None:
    """Declare `--metadata KEY=VALUE`."""
    parser.add_argument(
        "--metadata", action="append", type=entry, metavar="KEY=VALUE",
        help=f"{help}. Numbers, true, false and null are taken as such, 'KEY=\"1\"' as text.",
    )  # fmt: skip


def entry(text: str) -> tuple[str, Any]:
    """Return key and value of `KEY=VALUE`; for argparse."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form KEY=VALUE.")
    return key, _scalar(value)


def selected(options: dict[str, Any]) -> ActivityQuerySet:
    """Return the activities that the filters let through."""
    activities: ActivityQuerySet = Activity.objects.using(database())
    if options["status"]:
        activities = activities.filter(status__in=options["status"])
    if options["type"]:
        activities = activities.of_type(options["type"])
    if options["queue"]:
        activities = activities.filter(queue=options["queue"])
    return activities.for_metadata(**dict(options["metadata"] or []))


def find(text: str) -> UUID:
    """Return the id that is, or begins with, `text`; dashes do not matter.

    Raises `ActivityNotFound`, and `InvalidOption` if several begin so.
    """
    digits = text.strip().lower().replace("-", "")
    if not re.fullmatch(rf"[0-9a-f]{{1,{HEX_DIGITS}}}", digits):
        raise ActivityNotFound(repr(text))
    same = Activity.objects.using(database()).filter(agent_id__range=id_range(digits)).order_by("agent_id")
    found = list(same.values_list("agent_id", flat=True)[: _NAMED + 1])
    if not found:
        raise ActivityNotFound(text)
    if len(found) > 1:
        names = ", ".join(map(str, found[:_NAMED])) + (", ..." if len(found) > _NAMED else "")
        raise InvalidOption(f"Several activities begin with {text}: {names}. Give more digits.")
    return found[0]


def _scalar(text: str) -> str | int | float | bool | None:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, (str, int, float, type(None))) else text
