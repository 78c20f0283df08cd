"""The columns of the activity list: methods that turn a row into a cell, without a query of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, pgettext_lazy

from ..models import Activity, Status
from .access import AccessAdmin
from .children import ChildCounts
from .formatting import compact, count_text, duration, local_time, moment, money, short_time, span, total_tokens
from .metadata import EMPTY, MetadataColumn, metadata_columns
from .status import badge, progress_bar, short_id

MESSAGE_LENGTH = 300  # characters of the latest message; the page of the activity has all

COLUMNS = ("task", "state", "message", "tokens", "spent", "took", "created")


class ListColumns(AccessAdmin):
    """Cells of the list."""

    list_display = COLUMNS
    list_display_links = ("task",)
    sortable_by = ("task", "created")

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        """Return the columns, with those of `AGENTEXEC["ADMIN_METADATA_COLUMNS"]` in second place."""
        first, *others = super().get_list_display(request)
        own = [_metadata_cell(number, column) for number, column in enumerate(metadata_columns())]
        return [first, *own, *others]

    @admin.display(description=gettext_lazy("Task"), ordering="agent_type")
    def task(self, activity: Activity) -> str:
        """Return the task's name above the beginning of the id."""
        return format_html(
            '<span class="ae-task">{}</span> <span class="ae-id">{}</span>',
            activity.agent_type,
            short_id(activity),
        )

    @admin.display(description=gettext_lazy("Status"))
    def state(self, activity: Activity) -> str:
        """Return the status as a badge, and the progress while the activity is running."""
        if activity.status != Status.RUNNING:
            return badge(activity)
        return format_html("{} {}", badge(activity), progress_bar(activity, percentage_of(activity)))

    @admin.display(description=gettext_lazy("Result or latest message"))
    def message(self, activity: Activity) -> str:
        """Return the most useful line about the activity, and a second one with its place among others."""
        text = line_of(activity)
        short = text if len(text) <= MESSAGE_LENGTH else f"{text[: MESSAGE_LENGTH - 1]}…"
        cell = format_html('<span class="ae-message">{}</span>', short) if text else EMPTY
        notes = [note for note in (self._attempt_note(activity), self._parent_link(activity)) if note]
        if not notes:
            return cell
        joined = SafeString(" · ".join(notes))
        return format_html('{} <span class="ae-note">{}</span>', cell, joined)

    @admin.display(description=gettext_lazy("Tokens"))
    def tokens(self, activity: Activity) -> str:
        """Return the tokens used by all attempts."""
        total = total_tokens(activity.usage)
        if not total:
            return EMPTY
        return format_html('<span class="ae-number" title="{}">{}</span>', count_text(total), compact(total))

    @admin.display(description=gettext_lazy("Cost"))
    def spent(self, activity: Activity) -> str:
        """Return the cost of the calls in all attempts; unknown if tokens were used and no price is known."""
        if activity.cost is None and not total_tokens(activity.usage):
            return EMPTY
        return format_html('<span class="ae-number">{}</span>', money(activity.cost))

    @admin.display(description=gettext_lazy("Duration"))
    def took(self, activity: Activity) -> str:
        """Return how long it has run, up to now or to its end."""
        seconds = span(activity.started_at, activity.finished_at or timezone.now())
        if seconds is None:
            return EMPTY
        since = activity.started_at if activity.status == Status.RUNNING else None
        attribute = format_html(' data-since="{}"', since.isoformat()) if since else ""
        return format_html('<span class="ae-number"{}>{}</span>', attribute, duration(seconds))

    @admin.display(description=pgettext_lazy("time", "Created"), ordering="agent_id")
    def created(self, activity: Activity) -> str:
        """Return when it was created."""
        return moment(activity.created_at)

    @admin.display(description=gettext_lazy("Queue"))
    def line(self, activity: Activity) -> str:
        """Return the queue's name; for the `list_display` of a subclass."""
        return activity.queue or EMPTY

    def _attempt_note(self, activity: Activity) -> str:
        if activity.attempt < 2:
            return ""
        return format_html("{}", _("Attempt %(number)d") % {"number": activity.attempt})

    def _parent_link(self, activity: Activity) -> str:
        if activity.parent_id is None:
            return ""
        url = reverse(f"{self.admin_site.name}:agentexec_activity_change", args=[activity.parent_id])
        return format_html('<a class="ae-parent" href="{}">{}</a>', url, _("Parent"))


def line_of(activity: Activity) -> str:
    """Return the result's first line of a complete activity, the error of a failed one, else the latest message."""
    if activity.status == Status.COMPLETE and (result := getattr(activity, "result_line", "")):
        return str(result)
    if activity.status == Status.ERROR and activity.error:
        return activity.error
    counts: ChildCounts | None = getattr(activity, "child_counts", None)
    if activity.is_suspended and counts:
        return str(counts)
    if activity.status == Status.QUEUED and activity.run_after and activity.run_after > timezone.now():
        return _("Starts at %(time)s") % {"time": short_time(local_time(activity.run_after))}
    return activity.latest_log_message


def percentage_of(activity: Activity) -> int:
    """Return the progress: while an activity waits for its children, or reports none itself, that of the children."""
    counts: ChildCounts | None = getattr(activity, "child_counts", None)
    if counts and counts.total and (activity.is_suspended or not activity.percentage):
        return max(counts.percentage, activity.percentage)
    return activity.percentage


def _metadata_cell(number: int, column: MetadataColumn) -> Callable[[Activity], SafeString]:
    def cell(activity: Activity) -> SafeString:
        return column.html(activity)

    cell.__name__ = f"metadata_{number}"
    cell.short_description = column.label  # type: ignore[attr-defined]  # Django's form
    return cell
