"""The actions of the admin on activities: cancel, retry and delete, each for one row or for many."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from uuid import UUID

from django.contrib.admin.models import CHANGE, DELETION
from django.db import transaction
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext_lazy

from .. import activity
from ..activity import BulkOutcome
from ..activity.store import database
from ..exceptions import ActivityLocked, InvalidOption, InvalidTransition
from ..models import FINISHED, Activity, ActivityQuerySet

Text = str | Promise


@dataclass(frozen=True)
class Action:
    """A change that is confirmed, made, logged and reported in the same way for all actions."""

    name: str
    """Of the permission method and of the address: `has_<name>_permission`, `<id>/<name>/`."""
    label: Text
    question: Text
    """Asks before the change; holds `%(count)s`."""
    consequence: Text
    done: Text
    """Reports the change; holds `%(count)d`."""
    log_entry: Text
    action_flag: int
    candidates: Callable[[ActivityQuerySet], ActivityQuerySet]
    """Returns those of a selection that the change is made for."""
    run: Callable[[ActivityQuerySet], BulkOutcome]


def delete_many(activities: ActivityQuerySet) -> BulkOutcome:
    """Delete those of `activities` that have finished, with their logs; one transaction. Meant for a batch."""
    outcome = BulkOutcome()
    with transaction.atomic(using=database()):
        locked = activities.select_for_update().order_by("agent_id").values_list("agent_id", "status")
        rows: list[tuple[UUID, str]] = list(locked)
        outcome.done.extend(agent_id for agent_id, status in rows if status in FINISHED)
        outcome.refused.update(f"still {status}" for _id, status in rows if status not in FINISHED)
        Activity.objects.using(database()).filter(agent_id__in=outcome.done).delete()
    return outcome


CANCEL = Action(
    name="cancel",
    label=_("Cancel"),
    question=ngettext_lazy("Cancel %(count)s activity?", "Cancel %(count)s activities?", "number"),
    consequence=_("Handlers that run are stopped. What they have done so far stays done."),
    done=ngettext_lazy("%(count)d activity was canceled.", "%(count)d activities were canceled.", "count"),
    log_entry=_("Canceled."),
    action_flag=CHANGE,
    candidates=ActivityQuerySet.active,
    run=activity.cancel_many,
)

RETRY = Action(
    name="retry",
    label=_("Run again"),
    question=ngettext_lazy("Run %(count)s activity again?", "Run %(count)s activities again?", "number"),
    consequence=_("It is queued once more under the same id, with its history and all its automatic retries."),
    done=ngettext_lazy("%(count)d activity was queued again.", "%(count)d activities were queued again.", "count"),
    log_entry=_("Queued again."),
    action_flag=CHANGE,
    candidates=ActivityQuerySet.retryable,
    run=activity.retry_many,
)

RETRY_FRESH = replace(
    RETRY, log_entry=_("Queued again, with fresh calls."), run=partial(activity.retry_many, fresh=True)
)

DELETE = Action(
    name="delete",
    label=_("Delete"),
    question=ngettext_lazy("Delete %(count)s activity?", "Delete %(count)s activities?", "number"),
    consequence=_("History and results are lost. What is queued or running stays; cancel it first."),
    done=ngettext_lazy("%(count)d activity was deleted.", "%(count)d activities were deleted.", "count"),
    log_entry="",
    action_flag=DELETION,
    candidates=ActivityQuerySet.finished,
    run=delete_many,
)


def retry_from(step: str) -> Action:
    """Return the action that repeats a pipeline from this step on, whether it has failed or not."""

    def run(activities: ActivityQuerySet) -> BulkOutcome:
        outcome = BulkOutcome()
        for agent_id in activities.values_list("agent_id", flat=True):
            try:
                activity.retry(agent_id, from_step=step)
            except (InvalidTransition, InvalidOption, ActivityLocked) as refusal:
                outcome.refused[getattr(refusal, "reason", str(refusal))] += 1
            else:
                outcome.done.append(agent_id)
        return outcome

    return replace(
        RETRY,
        consequence=_("It is queued once more under the same id. The step %(step)s and all after it run again.")
        % {"step": step},
        candidates=ActivityQuerySet.finished,
        run=run,
    )
