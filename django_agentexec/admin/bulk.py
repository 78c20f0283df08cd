"""An action on a selection of activities, in batches: permissions, the change, and entries in the admin's log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from uuid import UUID

from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.utils.translation import ngettext

from ..activity.bulk import NOT_PERMITTED
from ..activity.store import database
from ..models import Activity, ActivityQuerySet
from .row_actions import Action

BATCH = 500  # rows of one transaction, as in `activity.bulk`
MAX_LOG_ENTRIES = 1_000  # of one action; what is beyond shares one entry


@dataclass
class Tally:
    """The outcome for a selection."""

    done: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """How many were refused, by reason."""


def run(action: Action, activities: ActivityQuerySet, user_id: int, may: Callable[[Activity], bool]) -> Tally:
    """Apply `action` to those of `activities` for which `may` is true, and log it in the name of the user."""
    tally = Tally()
    for rows in _batches(activities):
        permitted = {row.agent_id: row for row in rows if may(row)}
        with transaction.atomic(using=database()):
            outcome = action.run(Activity.objects.using(database()).filter(agent_id__in=permitted))
            _log(action, [permitted[one] for one in outcome.done][: max(0, MAX_LOG_ENTRIES - tally.done)], user_id)
        tally.done += len(outcome.done)
        tally.refused.update(outcome.refused)
        if not_permitted := len(rows) - len(permitted):
            tally.refused[NOT_PERMITTED] += not_permitted
    _log_rest(action, tally.done - MAX_LOG_ENTRIES, user_id)
    return tally


def _batches(activities: ActivityQuerySet) -> Iterator[list[Activity]]:
    """Yield the rows in order. By the last id, not by offset: what is changed may drop out of the question."""
    wanted = activities.without_payloads().order_by("agent_id")
    after = UUID(int=0)
    while rows := list(wanted.filter(agent_id__gt=after)[:BATCH]):
        yield rows
        after = rows[-1].agent_id


def _log(action: Action, rows: list[Activity], user_id: int) -> None:
    if rows:
        LogEntry.objects.log_actions(user_id, rows, action.action_flag, change_message=str(action.log_entry))


def _log_rest(action: Action, count: int, user_id: int) -> None:
    if count > 0:
        LogEntry.objects.create(
            user_id=user_id,
            content_type=ContentType.objects.get_for_model(Activity),
            object_repr=ngettext("%(count)d more activity", "%(count)d more activities", count) % {"count": count},
            action_flag=action.action_flag,
            change_message=str(action.log_entry),
        )
