"""Children of activities: how many there are and have finished, and what a list of them shows."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from uuid import UUID

from django.db.models import Count, Q
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..models import FINISHED, Activity, ActivityQuerySet, Status
from ..redaction import redact_row
from .formatting import count_text, duration, span
from .status import badge
from .values import JsonPrefix, first_line

MAX_CHILDREN = 20  # on the page of their parent


@dataclass(frozen=True)
class ChildCounts:
    """How many children an activity has."""

    total: int = 0
    finished: int = 0
    failed: int = 0

    @property
    def percentage(self) -> int:
        """How much of the children's work is done, 0 to 100."""
        return 100 * self.finished // self.total if self.total else 0

    def __str__(self) -> str:
        values = {"finished": count_text(self.finished), "total": count_text(self.total)}
        text = ngettext("%(finished)s of %(total)s child done", "%(finished)s of %(total)s children done", self.total)
        return text % values + (f", {self.failed_text}" if self.failed else "")

    @property
    def failed_text(self) -> str:
        """How many of them failed, in words."""
        return _("%(count)s failed") % {"count": count_text(self.failed)}

    @property
    def done_text(self) -> str:
        """How many of them are done, where it is clear that children are meant."""
        values = {"finished": count_text(self.finished), "total": count_text(self.total)}
        return _("%(finished)s of %(total)s done") % values


def child_counts(visible: ActivityQuerySet, parents: Collection[UUID]) -> dict[UUID, ChildCounts]:
    """Return the counts of visible children by parent; one query, none without parents."""
    if not parents:
        return {}
    rows = (
        visible.filter(parent_id__in=parents)
        .order_by()
        .values("parent_id")
        .annotate(
            total=Count("pk"),
            finished=Count("pk", filter=Q(status__in=FINISHED)),
            failed=Count("pk", filter=Q(status=Status.ERROR)),
        )
    )
    return {row["parent_id"]: ChildCounts(row["total"], row["finished"], row["failed"]) for row in rows}


def latest_children(visible: ActivityQuerySet, activity: Activity, *, is_redacted: bool = False) -> list[Activity]:
    """Return the latest children with what the template shows of each; at most two queries."""
    rows = visible.filter(parent_id=activity.pk).without_payloads().order_by("-agent_id")
    found = list(rows[:MAX_CHILDREN])
    add_result_lines(found)
    if is_redacted:
        for child in found:
            redact_row(child)
    for child in found:
        child.badge = badge(child)  # type: ignore[attr-defined]  # for the template
        child.label, child.took = label_of(child), took(child)  # type: ignore[attr-defined]  # for the template
    return found


def add_result_lines(activities: Iterable[Activity]) -> None:
    """Set `result_line` on these rows: the first line of the result of each complete one; at most one query."""
    rows = list(activities)
    complete = [row.pk for row in rows if row.status == Status.COMPLETE]
    texts: dict[UUID, str | None] = {}
    if complete:
        prefixes = Activity.objects.filter(pk__in=complete).annotate(text=JsonPrefix("result"))
        texts = dict(prefixes.order_by().values_list("pk", "text"))
    for row in rows:
        row.result_line = first_line(texts.get(row.pk) or "null")  # type: ignore[attr-defined]  # for the templates


def label_of(child: Activity) -> str:
    """Return the name of a child among its siblings: the key that its parent gave it, or its number."""
    _scope, slash, key = (child.spawn_key or "").rpartition("/")
    if slash and key:
        return key
    return "" if child.spawn_position is None else f"#{child.spawn_position + 1}"


def took(activity: Activity) -> str:
    """Return how long an activity that has finished took, or "" for any other."""
    return duration(span(activity.started_at, activity.finished_at))
