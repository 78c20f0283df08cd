"""Selection of the activities that a command works on, by id or by filters, and of the user it acts as."""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID

from django.contrib.auth import get_user_model
from django.utils.translation import gettext as _

from ..activity.store import database
from ..calls.queries import with_call
from ..exceptions import ActivityNotFound, InvalidOption
from ..ids import HEX_DIGITS, id_range
from ..models import Activity, ActivityQuerySet, CallKind

FILTERS = ("status", "type", "queue", "waiting_for", "model", "tool", "min_cost", "max_cost", "metadata")
"""The names of the options that `arguments.add_filters` declares."""
MAX_CANDIDATES = 3  # ids in the error message for ambiguous first digits


def has_filters(options: dict[str, Any]) -> bool:
    """Return whether a filter is given."""
    return any(options[name] not in (None, []) for name in FILTERS)


def select(options: dict[str, Any]) -> ActivityQuerySet:
    """Return the activities that match the filters."""
    activities: ActivityQuerySet = Activity.objects.using(database())
    if options["status"]:
        activities = activities.filter(status__in=options["status"])
    if options["type"] is not None:
        activities = activities.of_type(options["type"])
    if options["queue"] is not None:
        activities = activities.filter(queue=options["queue"])
    if options["waiting_for"]:
        activities = activities.suspended().filter(waiting_for__in=options["waiting_for"])
    for kind in (CallKind.MODEL, CallKind.TOOL):
        if options[kind] is not None:
            activities = with_call(activities, kind, options[kind])
    if options["min_cost"] is not None:
        activities = activities.filter(cost__gte=options["min_cost"])
    if options["max_cost"] is not None:
        activities = activities.filter(cost__lte=options["max_cost"])
    return with_metadata(activities, options)


def with_metadata(activities: ActivityQuerySet, options: dict[str, Any]) -> ActivityQuerySet:
    """Return the activities that have all entries of `--metadata`: none if one key is given with two values."""
    for key, value in options["metadata"] or []:
        activities = activities.for_metadata(**{key: value})
    return activities


def find(text: str) -> UUID:
    """Return the id that equals, or begins with, `text`; dashes are ignored.

    Raises `ActivityNotFound`, and `InvalidOption` if several ids begin with these digits.
    """
    digits = text.strip().lower().replace("-", "")
    if not re.fullmatch(rf"[0-9a-f]{{1,{HEX_DIGITS}}}", digits):
        raise ActivityNotFound(repr(text))
    same = Activity.objects.using(database()).filter(agent_id__range=id_range(digits)).order_by("agent_id")
    found = list(same.values_list("agent_id", flat=True)[: MAX_CANDIDATES + 1])
    if not found:
        raise ActivityNotFound(text)
    if len(found) > 1:
        ids = ", ".join(map(str, found[:MAX_CANDIDATES])) + (", ..." if len(found) > MAX_CANDIDATES else "")
        message = _("Several activities begin with %(digits)s: %(ids)s. Give more digits.")
        raise InvalidOption(message % {"digits": text, "ids": ids})
    return found[0]


def find_user(name: str) -> Any:
    """Return the active user of this name. Raises `InvalidOption`."""
    users = get_user_model()._default_manager
    found = users.filter(**{get_user_model().USERNAME_FIELD: name}).first()
    if found is None or not found.is_active:
        raise InvalidOption(_("There is no active user %(name)r.") % {"name": name})
    return found
