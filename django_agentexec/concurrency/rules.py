"""The limits and pauses of the rows, as the queue and the workers apply them."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.db import router

from ..choices import LimitScope, PauseScope, Status
from ..expressions import text_form
from ..logs import ThrottledLogger
from ..models import Activity, ConcurrencyLimit, Pause
from ..queues import Limit, Limits
from .keys import limit_of, own_key, task_key, tenant_key

_log = ThrottledLogger(logging.getLogger(__name__))


@dataclass
class Rules:
    """All limits and pauses at one moment."""

    by_key: Mapping[str, Limit] = field(default_factory=dict)
    """Limits of tasks and keys, and a maximum of 0 for each paused task and tenant."""
    tenants: Collection[tuple[str, str]] = ()
    """Metadata keys and values of paused tenants."""
    queues: Collection[str] = ()
    """Paused queues."""
    tasks: Collection[str] = ()
    """Paused tasks."""
    _of_queue: dict[bool, tuple[Limits, str]] = field(default_factory=dict, repr=False)

    def limits(self, queue: str) -> Limits:
        """Return the limits of a queue."""
        return self._limits_and_revision(queue)[0]

    def revision(self, queue: str) -> str:
        """Return the revision of the limits of a queue."""
        return self._limits_and_revision(queue)[1]

    def _limits_and_revision(self, queue: str) -> tuple[Limits, str]:
        is_paused = queue in self.queues
        if is_paused not in self._of_queue:
            limits = Limits(self.by_key, is_paused)
            self._of_queue[is_paused] = limits, limits.revision
        return self._of_queue[is_paused]

    def missing_keys(self, activity: Activity, known: Collection[str]) -> list[str]:
        """Return the keys of limits that apply to an activity besides those that its claim counts against (`known`)."""
        if not self.by_key:
            return []
        keys = self._keys(activity.agent_type, activity.metadata)
        return [key for key in keys if key in self.by_key and key not in known]

    def _keys(self, task: str, metadata: Mapping[str, Any]) -> Iterator[str]:
        yield task_key(task)
        for key, value in self.tenants:
            if key in metadata and text_form(metadata[key]) == value:
                yield tenant_key(key, value)

    def pause_of(self, activity: Activity) -> str:
        """Return the scope of a pause because of which an activity does not start: queue, task, tenant, or ""."""
        if activity.status != Status.QUEUED:
            return ""
        if activity.queue in self.queues:
            return PauseScope.QUEUE
        if activity.agent_type in self.tasks:
            return PauseScope.TASK
        metadata = activity.metadata if self.tenants else {}
        is_tenant = any(key in metadata and text_form(metadata[key]) == value for key, value in self.tenants)
        return PauseScope.TENANT if is_tenant else ""


def read_rules(using: str | None = None) -> Rules:
    """Return the limits and pauses of the rows. Two queries."""
    using = using or router.db_for_write(Activity)
    by_key = {}
    for row in ConcurrencyLimit.objects.using(using):
        key = task_key(row.name) if row.scope == LimitScope.TASK else own_key(row.name)
        try:
            by_key[key] = limit_of(key, row.maximum, row.rate_limit)
        except ValueError as error:  # written without validation: the limit in the code applies
            _log.warn(f"The concurrency limit {row.name!r} is ignored, since its rate is invalid.", error)
    return _with_pauses(by_key, using)


def read_pauses(using: str | None = None) -> Rules:
    """Return the pauses only. One query."""
    return _with_pauses({}, using or router.db_for_write(Activity))


def note_pauses(activities: Iterable[Activity]) -> None:
    """Set `paused` of the activities that do not start because of a pause; one query if any of them is queued."""
    queued = [activity for activity in activities if activity.status == Status.QUEUED and activity.queue]
    if queued:
        rules = read_pauses()
        for activity in queued:
            activity.paused = rules.pause_of(activity)


def pauses_of(activity: Activity) -> list[Pause]:
    """Return the pauses because of which an activity does not start, and set its `paused`.

    `paused` has the scope of the first of them. One query if the activity is queued.
    """
    if activity.status != Status.QUEUED or not activity.queue:
        return []
    rows = Pause.objects.using(router.db_for_write(Activity)).order_by("scope", "name")
    found = [row for row in rows if _pauses({row.scope: [row.name]}).pause_of(activity)]
    activity.paused = found[0].scope if found else ""
    return found


def _with_pauses(by_key: dict[str, Limit], using: str) -> Rules:
    names: dict[str, list[str]] = defaultdict(list)
    for scope, name in Pause.objects.using(using).values_list("scope", "name"):
        names[scope].append(name)
    return _pauses(names, by_key)


def _pauses(names: Mapping[str, list[str]], by_key: dict[str, Limit] | None = None) -> Rules:
    """Return rules with pauses of these names, by scope, beside the limits `by_key`."""
    by_key = {} if by_key is None else by_key
    queues, tasks = names.get(PauseScope.QUEUE, []), names.get(PauseScope.TASK, [])
    tenants = [(key, value) for key, _, value in (name.partition("=") for name in names.get(PauseScope.TENANT, []))]
    paused = [task_key(name) for name in tasks] + [tenant_key(*tenant) for tenant in tenants]
    for key in paused:
        by_key[key] = Limit(key, 0)
    return Rules(by_key, tenants, queues, tasks)
