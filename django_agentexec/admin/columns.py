"""The columns of the activity list: methods that turn a row into a cell, without a query of their own."""

from __future__ import annotations

from django.contrib import admin
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timezone import localtime
from django.utils.translation import gettext_lazy as _

from ..models import Activity, Status
from .access import AccessAdmin
from .formatting import age, compact, duration, span, total_tokens

EMPTY = SafeString('<span class="ae-quiet">&ndash;</span>')
MESSAGE_LENGTH = 140  # characters of the latest message; the whole one is in the cell's title

COLUMNS = ("task", "state", "message", "created", "took", "tokens", "line")


class ListColumns(AccessAdmin):
    """Cells of the list."""

    list_display = COLUMNS
    list_display_links = ("task",)
    sortable_by = ("task", "created")

    @admin.display(description=_("task"), ordering="agent_type")
    def task(self, activity: Activity) -> str:
        """Return the task's name above the beginning of the id."""
        return format_html(
            '<span class="ae-task">{}</span> <span class="ae-id">{}</span>',
            activity.agent_type,
            short_id(activity),
        )

    @admin.display(description=_("status"))
    def state(self, activity: Activity) -> str:
        """Return the status as a badge, above a bar where that tells more."""
        has_bar = activity.started_at is not None and activity.status != Status.COMPLETE
        return format_html("{} {}", badge(activity), progress_bar(activity)) if has_bar else badge(activity)

    @admin.display(description=_("latest message"))
    def message(self, activity: Activity) -> str:
        """Return the latest message, cut to two lines, and a link to the parent if there is one."""
        text = activity.latest_log_message
        short = text if len(text) <= MESSAGE_LENGTH else f"{text[: MESSAGE_LENGTH - 1]}…"
        cell = format_html('<span class="ae-message" title="{}">{}</span>', text, short) if text else EMPTY
        if activity.parent_id is None:
            return cell
        url = reverse(f"{self.admin_site.name}:agentexec_activity_change", args=[activity.parent_id])
        return format_html('{} <a class="ae-parent" href="{}">{}</a>', cell, url, _("Parent"))

    @admin.display(description=_("age"), ordering="agent_id")
    def created(self, activity: Activity) -> str:
        """Return how long ago it was created."""
        seconds = (timezone.now() - activity.created_at).total_seconds()
        moment = localtime(activity.created_at) if timezone.is_aware(activity.created_at) else activity.created_at
        return format_html(
            '<time class="ae-number" datetime="{}" title="{} {}">{}</time>',
            moment.isoformat(),
            date_format(moment, "DATETIME_FORMAT"),
            timezone.get_current_timezone_name(),
            age(seconds),
        )

    @admin.display(description=_("duration"))
    def took(self, activity: Activity) -> str:
        """Return how long it has run, up to now or to its end, above the number of the latest attempt."""
        seconds = span(activity.started_at, activity.finished_at or timezone.now())
        return format_html(
            '{} <span class="ae-attempt">{}</span>',
            format_html('<span class="ae-number">{}</span>', duration(seconds)) if seconds is not None else EMPTY,
            _("attempt %(number)d") % {"number": activity.attempt} if activity.attempt else "",
        )

    @admin.display(description=_("tokens"))
    def tokens(self, activity: Activity) -> str:
        """Return the tokens used by all attempts."""
        total = total_tokens(activity.usage)
        return (
            format_html('<span class="ae-number" title="{}">{}</span>', f"{total:,}", compact(total))
            if total
            else EMPTY
        )

    @admin.display(description=_("queue"))
    def line(self, activity: Activity) -> str:
        """Return the queue's name."""
        return activity.queue or EMPTY


def badge(activity: Activity) -> SafeString:
    """Return the status as a coloured word."""
    return format_html(
        '<span class="ae-badge" data-status="{}">{}</span>', activity.status, activity.get_status_display()
    )


def progress_bar(activity: Activity) -> SafeString:
    """Return the progress as a bar and a number."""
    return format_html(
        '<span class="ae-progress" data-status="{}"><progress max="100" value="{}" aria-label="{}"></progress>'
        '<span class="ae-number">{}%</span></span>',
        activity.status,
        activity.percentage,
        _("Progress of %(name)s") % {"name": activity.agent_type},
        activity.percentage,
    )


def short_id(activity: Activity) -> str:
    """Return the beginning of the id, as far as it is time and counter: the search finds it by that."""
    return str(activity.agent_id)[:18]
