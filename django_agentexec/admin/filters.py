"""The list's filters. None of them reads the table to find out what could be chosen."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any

from django.contrib import messages
from django.contrib.admin import ListFilter, SimpleListFilter
from django.contrib.admin.views.main import ChangeList
from django.db import connections
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from ..conf import conf
from ..ids import first_id
from ..models import DECISIONS, Activity, ActivityQuerySet, Status, WaitingFor
from ..tasks.registry import registry
from ..validation import is_storable
from .call_filters import CostFilter, ModelFilter, ToolFilter
from .metadata import MAX_ENTRIES, SAMPLE, entries_of
from .status import status_label

logger = logging.getLogger(__name__)

MAX_TASKS = 200  # names offered; there are as many as a project has written tasks
NO_QUEUE = "-"
METADATA = "metadata"

# One seek in the index per name, where DISTINCT would read a million rows ("loose index scan").
_TASK_NAMES = """
WITH RECURSIVE names(name) AS (
    SELECT * FROM (SELECT agent_type FROM agentexec_activity ORDER BY agent_type LIMIT 1) AS first
    UNION ALL
    SELECT (SELECT agent_type FROM agentexec_activity WHERE agent_type > name ORDER BY agent_type LIMIT 1)
    FROM names WHERE name IS NOT NULL
)
SELECT name FROM names WHERE name IS NOT NULL LIMIT %s
"""


def task_names() -> list[str]:
    """Return the task names that rows of all tenants have, in order; one query."""
    with connections[Activity.objects.db].cursor() as cursor:
        cursor.execute(_TASK_NAMES, [MAX_TASKS])
        return [name for (name,) in cursor.fetchall()]


def recent_task_names(activities: ActivityQuerySet) -> list[str]:
    """Return the task names of the newest of these activities, in order; one query."""
    newest = activities.order_by("-agent_id").values_list("agent_type", flat=True)[:SAMPLE]
    return sorted(set(newest))


def queue_names() -> list[str]:
    """Return the queues of the settings and of the registered tasks."""
    names = dict.fromkeys(conf.QUEUES)
    try:
        names.update(dict.fromkeys(definition.queue for definition in registry))
    except Exception:  # whatever an application's agents.py raises; a worker says so louder
        logger.warning("The tasks cannot be loaded; the list offers the queues of the settings only.", exc_info=True)
    return list(names)


class _Choices(SimpleListFilter):
    """A filter with fixed choices, each a value, its label and its question."""

    title: Any
    parameter_name: str

    def options(self) -> Iterable[tuple[str, Any]]:
        """Return values and labels."""
        raise NotImplementedError

    def chosen(self, activities: ActivityQuerySet, value: str) -> ActivityQuerySet:
        """Return those of `activities` that the value stands for."""
        raise NotImplementedError

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, Any]]:
        """Return values and labels, and what was asked for by hand."""
        options = list(self.options())
        value = self.value()
        if value and value not in (known for known, _label in options):
            options.append((value, value))
        return options

    def queryset(self, request: HttpRequest, queryset: QuerySet[Activity]) -> QuerySet[Activity]:
        """Return the chosen ones."""
        assert isinstance(queryset, ActivityQuerySet)
        value = self.value()
        if value is None:
            return queryset
        return self.chosen(queryset, value) if is_storable(value) else queryset.none()


class LifeFilter(_Choices):
    """Active or finished."""

    title = _("state")
    parameter_name = "life"
    horizontal = True  # django-unfold writes the choices side by side

    def options(self) -> Iterable[tuple[str, Any]]:
        """Return the two halves."""
        return [("active", _("Active")), ("finished", _("Finished"))]

    def chosen(self, activities: ActivityQuerySet, value: str) -> ActivityQuerySet:
        """Return one half."""
        halves: dict[str, Callable[[], ActivityQuerySet]] = {
            "active": activities.active,
            "finished": activities.finished,
        }
        return halves.get(value, activities.none)()


class StatusFilter(_Choices):
    """One status."""

    title = _("status")
    parameter_name = "status"

    def options(self) -> Iterable[tuple[str, Any]]:
        """Return the statuses."""
        return [(status, status_label(status)) for status in Status.values]

    def chosen(self, activities: ActivityQuerySet, value: str) -> ActivityQuerySet:
        """Return those in it."""
        return activities.filter(status=value)


class WaitingFilter(_Choices):
    """Suspended activities, by what they wait for."""

    title = _("waiting for")
    parameter_name = "waiting_for"

    def options(self) -> Iterable[tuple[str, Any]]:
        """Return the reasons that occur."""
        return [
            ("decision", _("A decision or an answer")),
            (WaitingFor.APPROVAL, _("An approval")),
            (WaitingFor.ANSWER, _("An answer")),
            (WaitingFor.CHILDREN, _("Children")),
            (WaitingFor.BUDGET, _("A budget")),
            (WaitingFor.LIMIT, _("The limit of a provider")),
        ]

    def chosen(self, activities: ActivityQuerySet, value: str) -> ActivityQuerySet:
        """Return the activities that wait for it."""
        reasons = DECISIONS if value == "decision" else (value,)
        return activities.suspended().filter(waiting_for__in=reasons)


class TaskFilter(_Choices):
    """One task."""

    title = _("task")
    parameter_name = "task"

    def __init__(self, request: HttpRequest, params: dict[str, list[str]], model: Any, model_admin: Any) -> None:
        is_monitor = model_admin.has_monitor_permission(request)
        self._names = task_names() if is_monitor else recent_task_names(model_admin.get_queryset(request))
        super().__init__(request, params, model, model_admin)

    def options(self) -> Iterable[tuple[str, Any]]:
        """Return the names that rows have: of all tenants for users who may monitor, otherwise of visible rows."""
        return [(name, name) for name in self._names]

    def chosen(self, activities: ActivityQuerySet, value: str) -> ActivityQuerySet:
        """Return its runs."""
        return activities.of_type(value)


class QueueFilter(_Choices):
    """One queue."""

    title = _("queue")
    parameter_name = "queue"

    def options(self) -> Iterable[tuple[str, Any]]:
        """Return the known queues."""
        return [*((name, name) for name in queue_names()), (NO_QUEUE, _("None, driven by hand"))]

    def chosen(self, activities: ActivityQuerySet, value: str) -> ActivityQuerySet:
        """Return what goes through it."""
        return activities.filter(queue="" if value == NO_QUEUE else value)


class CreatedFilter(_Choices):
    """The time of creation, with which the id begins: a range of the primary key."""

    title = _("created")
    parameter_name = "created"
    _PERIODS = {
        "1h": (_("Past hour"), timedelta(hours=1)),
        "24h": (_("Past 24 hours"), timedelta(hours=24)),
        "7d": (_("Past 7 days"), timedelta(days=7)),
        "30d": (_("Past 30 days"), timedelta(days=30)),
    }
    _OLDER = "older"

    def options(self) -> Iterable[tuple[str, Any]]:
        """Return the periods."""
        return [*((key, label) for key, (label, _span) in self._PERIODS.items()), (self._OLDER, _("Earlier"))]

    def chosen(self, activities: ActivityQuerySet, value: str) -> ActivityQuerySet:
        """Return those of the period."""
        now = timezone.now()
        if value == self._OLDER:
            return activities.filter(agent_id__lt=first_id(now - self._PERIODS["30d"][1]))
        if value not in self._PERIODS:
            return activities.none()
        return activities.filter(agent_id__gte=first_id(now - self._PERIODS[value][1]))


class MetadataFilter(ListFilter):
    """`?metadata=key=value`, from a small form, or `?metadata.key=value`, from a link; several must all hold."""

    title: Any = _("metadata")
    parameter_name = METADATA  # newer versions of django-unfold ask every filter for it
    template = "admin/agentexec/activity/metadata_filter.html"

    def __init__(self, request: HttpRequest, params: dict[str, list[str]], model: Any, model_admin: Any) -> None:
        super().__init__(request, params, model, model_admin)
        own = [name for name in params if name == METADATA or name.startswith(f"{METADATA}.")]
        self.asked: dict[str, list[str]] = {name: params.pop(name) for name in own}
        entries = list(entries_of(self.asked))
        self.entries = entries[:MAX_ENTRIES]
        if len(entries) > MAX_ENTRIES:
            text = _("The list filters by %(count)d metadata entries at most; the others were ignored.")
            messages.warning(request, text % {"count": MAX_ENTRIES}, fail_silently=True)

    def has_output(self) -> bool:
        """Return whether to show it: always."""
        return True

    def expected_parameters(self) -> list[str | None]:
        """Return the parameters of the request that are its own."""
        return list(self.asked)

    def queryset(self, request: HttpRequest, queryset: QuerySet[Activity]) -> QuerySet[Activity]:
        """Return those with all entries."""
        assert isinstance(queryset, ActivityQuerySet)
        for entry in self.entries:
            queryset = queryset.for_metadata_text(entry.key, entry.value)
        return queryset

    def choices(self, changelist: ChangeList) -> Iterator[dict[str, Any]]:
        """Yield the entries in force, each with the address of the list without it."""
        for entry in self.entries:
            rest = [text for text in self.asked[entry.parameter] if text != entry.text]
            yield {
                "selected": True,
                "display": f"{entry.key} = {entry.value}",
                "query_string": changelist.get_query_string({entry.parameter: rest or None}, ["p"]),
            }

    @property
    def hidden(self) -> list[tuple[str, str]]:
        """The request's other parameters, which the form must keep (not the page: it is another list's)."""
        return [
            (name, value)
            for name, values in self.request.GET.lists()
            for value in values
            if name not in (METADATA, "p")
        ] + [(METADATA, entry.text) for entry in self.entries if entry.parameter == METADATA]


FILTERS: tuple[type[ListFilter], ...] = (
    LifeFilter,
    StatusFilter,
    WaitingFilter,
    TaskFilter,
    QueueFilter,
    CreatedFilter,
    ModelFilter,
    ToolFilter,
    CostFilter,
    MetadataFilter,
)

PARENT = "parent"
"""A parameter without a filter: the page of an activity links to its children with it."""
