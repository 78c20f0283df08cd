"""The status of an activity as a word, a shape and a colour."""

from __future__ import annotations

from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from ..models import CONDITIONS, DECISIONS, Activity, Status, WaitingFor

SUSPENDED = "suspended"
"""Shown in place of the status while a running activity waits for its children."""

SHOWN_REASONS = (*DECISIONS, *CONDITIONS)
"""Shown in place of the status while a running activity waits for them."""


def status_label(status: str) -> str:
    """Return the word for a status, or the status itself if it is unknown."""
    labels: dict[str, str] = {
        Status.QUEUED: _("Queued"),
        Status.RUNNING: _("Running"),
        Status.COMPLETE: _("Complete"),
        Status.ERROR: _("Failed"),
        Status.CANCELED: _("Canceled"),
        SUSPENDED: _("Waiting"),
        WaitingFor.APPROVAL: _("Needs approval"),
        WaitingFor.ANSWER: _("Needs an answer"),
        WaitingFor.BUDGET: _("Waiting for budget"),
        WaitingFor.LIMIT: _("Waiting for provider"),
    }
    return labels.get(status, status)


def shown_status(activity: Activity) -> str:
    """Return the status; while a running activity waits, `suspended`, or the decision or condition it waits for."""
    if not activity.is_suspended:
        return activity.status
    return activity.waiting_for if activity.waiting_for in SHOWN_REASONS else SUSPENDED


def badge(activity: Activity) -> SafeString:
    """Return the status as a word with a shape and a colour."""
    status = shown_status(activity)
    return format_html('<span class="ae-badge" data-status="{}">{}</span>', status, status_label(status))


def progress_bar(activity: Activity, percentage: int | None = None) -> SafeString:
    """Return the progress as a bar and a number; the activity's own unless given."""
    value = activity.percentage if percentage is None else percentage
    return format_html(
        '<span class="ae-progress" data-status="{}"><progress max="100" value="{}" aria-label="{}"></progress>'
        '<span class="ae-number">{} %</span></span>',
        shown_status(activity),
        value,
        _("Progress of %(name)s") % {"name": activity.agent_type},
        value,
    )


def short_id(activity: Activity) -> str:
    """Return the beginning of the id, as far as it is time and counter: the search finds it by that."""
    return str(activity.agent_id)[:18]
