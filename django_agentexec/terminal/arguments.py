"""Arguments of the commands: durations such as `90`, `30s`, `15m`, `12h`, `30d` and `2w`, priorities and filters."""

from __future__ import annotations

import argparse
import json
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from django.utils.translation import gettext as _

from ..models import Priority, Status, WaitingFor
from ..money import storable
from ..parsing import parse_day, parse_decimal, parse_digits, parse_duration
from ..validation import MAX_NAME, is_storable

MIN_INTERVAL = 0.1  # seconds
_PRIORITIES = {text: priority for priority in Priority for text in (priority.name.lower(), str(priority.value))}


def duration(text: str) -> timedelta:
    """Return a duration. The unit is required, since `30` could mean days or seconds. Raises `ArgumentTypeError`."""
    try:
        found = parse_duration(text)
    except OverflowError:
        raise _invalid(_("%(text)r exceeds the longest possible duration."), text) from None
    if found is None:
        raise _invalid(_("%(text)r is not a duration: give a number and s, m, h, d or w, such as 30d."), text)
    return found


def seconds(text: str) -> float:
    """Return the seconds of a plain number, or of a duration with a unit. Raises `ArgumentTypeError`."""
    value = parse_decimal(text)
    if value is None:
        return duration(text).total_seconds()
    if not 0 <= value < 10**9:
        raise _invalid(_("%(text)r is not a number of seconds."), text)
    return value


def interval(text: str) -> float:
    """Return the seconds between two updates of a screen, at least `MIN_INTERVAL`. Raises `ArgumentTypeError`."""
    value = seconds(text)
    if value < MIN_INTERVAL:
        raise _invalid(_("%(text)r is too short; the minimum is 0.1 s."), text)
    return value


def day(text: str) -> date:
    """Return the day of YYYY-MM-DD. Raises `ArgumentTypeError`."""
    value = parse_day(text)
    if value is None:
        raise _invalid(_("%(text)r is not a day: give YYYY-MM-DD, such as 2026-11-30."), text)
    return value


def positive(text: str) -> int:
    """Return a whole number from 1. Raises `ArgumentTypeError`."""
    value = parse_digits(text)
    if not value:
        raise _invalid(_("%(text)r is not a positive whole number."), text)
    return value


def priority(text: str) -> Priority:
    """Return the priority of a name, such as `high`, or of its number. Raises `ArgumentTypeError`."""
    try:
        return _PRIORITIES[text.strip().lower()]
    except KeyError:
        raise _invalid(_("%(text)r is not a priority: give high, normal or low."), text) from None


def cost(text: str) -> Decimal:
    """Return an amount of US dollars that the database can compare. Raises `ArgumentTypeError`."""
    amount = storable(Decimal(text)) if parse_decimal(text) is not None else None
    if amount is None:
        raise _invalid(_("%(text)r is not an amount of US dollars: give a number such as 0.25."), text)
    return amount


def filter_name(text: str) -> str:
    """Return a name to filter by. Raises `ArgumentTypeError`, also for "", such as an unset variable of a shell."""
    if not (1 <= len(text) <= MAX_NAME and is_storable(text)):
        message = _("The name %(name)s must be text of 1 to %(maximum)s printable characters.")
        raise argparse.ArgumentTypeError(message % {"name": f"{text!r:.80}", "maximum": MAX_NAME})
    return text


def entry(text: str) -> tuple[str, Any]:
    """Return key and value of `KEY=VALUE`. Raises `ArgumentTypeError`."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise _invalid(_("%(text)r does not have the form KEY=VALUE."), text)
    return key, _scalar(value)


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Declare the filters; an activity must match all that are given."""
    group = parser.add_argument_group(_("filters"))
    group.add_argument(
        "--status", action="append", choices=Status.values, help=_("status of the activity; may be repeated")
    )
    group.add_argument("--type", type=filter_name, metavar="TASK", help=_("name of the task"))
    group.add_argument("--queue", type=filter_name, metavar="NAME", help=_("name of the queue"))
    waiting_help = _("reason for which the activity is suspended; may be repeated")
    group.add_argument("--waiting-for", action="append", choices=WaitingFor.values, help=waiting_help)
    model_help = _("name of a model that its agents have called")
    group.add_argument("--model", type=filter_name, metavar="NAME", help=model_help)
    group.add_argument("--tool", type=filter_name, metavar="NAME", help=_("name of a tool that its agents have called"))
    group.add_argument(
        "--min-cost",
        type=cost,
        metavar="USD",
        help=_("minimum cost in US dollars; activities without a known cost do not match"),
    )
    group.add_argument(
        "--max-cost",
        type=cost,
        metavar="USD",
        help=_("maximum cost in US dollars; activities without a known cost do not match"),
    )
    add_metadata(group, _("entry of the metadata; may be repeated"))


def add_metadata(parser: argparse._ActionsContainer, help: str) -> None:
    """Declare `--metadata KEY=VALUE`."""
    note = _("Numbers, true, false and null are read as JSON; 'KEY=\"1\"' is text.")
    parser.add_argument("--metadata", action="append", type=entry, metavar="KEY=VALUE", help=f"{help}. {note}")


def add_id(parser: argparse.ArgumentParser) -> None:
    """Declare the id of an activity."""
    parser.add_argument("id", help=_("id of the activity, or its first digits"))


def _invalid(message: str, text: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(message % {"text": text})


def _scalar(text: str) -> str | int | float | bool | None:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, (str, int, float, type(None))) else text
