"""Schedules declared in code: `@schedule` on a handler, or `add_schedule` in an `agents` module.

Declarations are validated and stored in this module; when a scheduler starts, `sync` writes them to the database.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, TypedDict, Unpack

from celery.schedules import ParseException, crontab
from django.apps import apps
from django.conf import settings
from django.utils import timezone
from pydantic import BaseModel
from pydantic import ValidationError as PydanticError

from ..exceptions import InvalidContext, ScheduleError
from ..serialization.roundtrip import in_one_order
from ..tasks import AnyTask, Task, registry, task
from ..tasks.decorator import TaskDecorator
from ..tasks.options import PriorityOption, validate_priority, validate_queue
from ..validation import MAX_COUNT, is_storable, is_storable_moment, validate_metadata
from .crontabs import default_zone, zone_named

APP = "django_agentexec.schedules"
MAX_NAME_LENGTH = 200  # characters; the size of the column
CRON_FIELDS = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
PERIODS = {"days": 86_400, "hours": 3_600, "minutes": 60, "seconds": 1}


@dataclass(frozen=True, slots=True)
class Solar:
    """A solar event, such as `Solar("sunset", 52.52, 13.40)`: event, latitude and longitude in degrees."""

    event: str
    latitude: float
    longitude: float


When = str | timedelta | int | float | datetime | Solar


class ScheduleOptions(TypedDict, total=False):
    """The optional arguments of `schedule` and `add_schedule`."""

    context: BaseModel | None
    timezone: str
    repeat: int | None
    start_at: datetime | None
    expires_at: datetime | None
    misfire: str
    priority: PriorityOption | None
    queue: str
    metadata: Mapping[str, Any] | None
    description: str


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """A schedule declared in code. Raises `ScheduleError` or `InvalidOption` for invalid values."""

    name: str
    task: str | AnyTask
    when: When
    context: BaseModel | None = None
    timezone: str = ""
    repeat: int | None = None
    start_at: datetime | None = None
    expires_at: datetime | None = None
    misfire: str = "skip"
    priority: PriorityOption | None = None
    queue: str = ""
    metadata: Mapping[str, Any] | None = None
    description: str = ""
    timer: str = field(init=False)
    """The kind of timer: `crontab`, `interval`, `clocked` or `solar`."""
    timer_fields: dict[str, Any] = field(init=False)
    """The field values of the timer's row."""

    def __post_init__(self) -> None:
        if not apps.is_installed(APP):
            raise ScheduleError(f"Schedules need 'django_celery_beat' and {APP!r} in INSTALLED_APPS.")
        if not isinstance(self.name, str) or not 1 <= len(self.name) <= MAX_NAME_LENGTH or not is_storable(self.name):
            raise ScheduleError(
                f"The name of a schedule has 1 to {MAX_NAME_LENGTH} characters, without NUL and lone surrogates, but "
                f"this is {self.name!r:.300}."
            )
        timer, fields = self._timer()
        object.__setattr__(self, "timer", timer)
        object.__setattr__(self, "timer_fields", fields)
        self._check_options()
        if isinstance(self.task, Task):
            self.stored_context()

    def stored_context(self) -> dict[str, Any]:
        """Return the context as JSON. Raises `UnknownTask`, and `ScheduleError` for a context of another type."""
        definition = registry.get(self.task) if isinstance(self.task, str) else self.task
        try:
            context = definition.context_type() if self.context is None else self.context
        except PydanticError as error:
            raise self._error(f"the task needs a {definition.context_type.__name__}; pass it as context") from error
        try:
            # In the same order in every process, because the digest depends on it.
            content: dict[str, Any] = in_one_order(context, definition.store_context(context))
        except InvalidContext as error:
            raise self._error(str(error).removesuffix(".")) from error
        return content

    @property
    def identity(self) -> tuple[str, str, dict[str, Any]]:
        """The values that are equal if a declaration is imported twice, as opposed to a name conflict."""
        return self.task_name, self.timer, self.timer_fields

    @property
    def task_name(self) -> str:
        """The name of the task."""
        return self.task if isinstance(self.task, str) else self.task.name

    def columns(self) -> dict[str, Any]:
        """Return the columns of the schedule without its timer. Raises the exceptions of `stored_context`."""
        return {
            "task": self.task_name,
            "context": self.stored_context(),
            "metadata": dict(self.metadata or {}),
            **{
                name: getattr(self, name)
                for name in ("repeat", "start_at", "expires_at", "misfire", "priority", "queue", "description")
            },
        }

    def digest(self) -> str:
        """Return a digest that changes whenever the declaration changes."""
        content = [self.columns(), self.timer, self.timer_fields]
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()

    def _timer(self) -> tuple[str, dict[str, Any]]:
        when = self.when
        if isinstance(when, str):
            return "crontab", {**self._cron(when), "timezone": str(self._zone())}
        if self.timezone:
            raise self._error("only crontabs have a time zone")
        if isinstance(when, datetime):
            return "clocked", {"clocked_time": when}
        if isinstance(when, Solar):
            place = {"latitude": when.latitude, "longitude": when.longitude}
            return "solar", {"event": when.event, **{name: self._degrees(value) for name, value in place.items()}}
        return "interval", self._interval(when)

    def _cron(self, text: str) -> dict[str, str]:
        parts = dict(zip(CRON_FIELDS, text.split(), strict=False))
        try:
            if len(text.split()) != len(CRON_FIELDS):
                raise ValueError("a crontab has five fields: minute, hour, day of month, month and day of week")
            crontab(**parts)
        except (ValueError, ParseException) as error:
            raise self._error(f"{text!r} is not a valid crontab: {' '.join(str(error).split()).rstrip('.')}") from error
        return parts

    def _zone(self) -> object:
        return zone_named(self.timezone) if self.timezone else default_zone()

    def _interval(self, when: object) -> dict[str, Any]:
        seconds = when.total_seconds() if isinstance(when, timedelta) else when
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 1 <= seconds < 10**9:
            raise self._error(
                f"{when!r} is not a valid time; use a crontab such as '*/5 * * * *', an interval (a timedelta, or "
                "seconds from 1), a datetime, or Solar(...)"
            )
        for period, length in PERIODS.items():
            if seconds % length == 0:
                return {"every": int(seconds // length), "period": period}
        microseconds = round(seconds * 1_000_000)
        if microseconds > MAX_COUNT:
            raise self._error(f"{when!r} has fractions of a second, which are only supported up to 35 minutes")
        return {"every": microseconds, "period": "microseconds"}

    def _degrees(self, value: float) -> Decimal:
        """Return a coordinate with the precision of its column."""
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not -180 <= value <= 180:
            raise self._error(f"{value!r} is not a coordinate; use degrees from -180 to 180")
        return Decimal(str(round(value, 6)))

    def _check_options(self) -> None:
        if self.misfire not in ("skip", "catch_up"):
            raise self._error(f"misfire={self.misfire!r} must be 'skip' or 'catch_up'")
        if self.repeat is not None and (isinstance(self.repeat, bool) or not isinstance(self.repeat, int)):
            raise self._error(f"repeat={self.repeat!r} must be a number of runs")
        if self.repeat is not None and not 1 <= self.repeat <= MAX_COUNT:
            raise self._error(f"repeat={self.repeat!r} must be from 1 to {MAX_COUNT:,} runs; omit it for no limit")
        if not isinstance(self.description, str) or not is_storable(self.description):
            raise self._error(f"description={self.description!r:.80} must be text, without NUL")
        for name in ("start_at", "expires_at", "when"):
            moment = getattr(self, name)
            if isinstance(moment, datetime) and timezone.is_naive(moment) and settings.USE_TZ:
                raise self._error(f"{name}={moment!r} has no time zone")
            if isinstance(moment, datetime) and not is_storable_moment(moment):
                raise self._error(
                    f"{name}={moment!r} is too close to the limits of the calendar; use years from 2 to 9998"
                )
        if self.start_at and self.expires_at and self.start_at >= self.expires_at:
            raise self._error("expires_at must be later than start_at")
        if self.priority is not None:
            object.__setattr__(self, "priority", validate_priority(self.priority))
        if self.queue:
            validate_queue(self.queue)
        validate_metadata(self.metadata)

    def _error(self, problem: str) -> ScheduleError:
        return ScheduleError(f"Schedule {self.name!r}: {problem}.")


_declarations: dict[str, Declaration] = {}


def declared() -> list[Declaration]:
    """Return the schedules declared in installed apps. Imports their `agents` modules."""
    registry.discover()
    return list(_declarations.values())


def forget(name: str) -> None:
    """Remove a declaration; for tests."""
    _declarations.pop(name, None)


def add_schedule(name: str, task: str | AnyTask, when: When, **options: Unpack[ScheduleOptions]) -> None:
    """Enqueue `task` at given times. Call this function at the import of an `agents` module.

    - `when`: a crontab with five fields, an interval (a timedelta, or seconds from 1), a datetime (once), or
      `Solar`.
    - `context`: the input of the task; optional if the context type has no required fields.
    - `timezone`: the time zone of the crontab, by default `AGENTEXEC["SCHEDULER_TIMEZONE"]`.
    - `repeat`: the total number of runs, by default unlimited.
    - `start_at`, `expires_at`: aware datetimes; the schedule is due from the first and before the second.
    - `misfire`: the handling of missed runs: `"skip"`, or `"catch_up"` for one run in place of all of them.
    - `priority` (also by name, such as `"high"`), `queue`, `metadata`: override the values of the task.
    - `description`: shown in the admin.

    Raises `ScheduleError` or `InvalidOption` for invalid values.
    """
    declaration = Declaration(name=name, task=task, when=when, **options)
    known = _declarations.get(name)
    # A module that is imported again repeats its declarations.
    if known is not None and known.identity != declaration.identity:
        raise ScheduleError(f"Two schedules have the name {name!r}. Rename one of them.")
    _declarations[name] = declaration


def schedule(name: str, when: When, **options: Unpack[ScheduleOptions]) -> TaskDecorator:
    """Enqueue the decorated task at given times; see `add_schedule` for the options.

    A plain function is also registered as a task with the same name. Place `@schedule` above `@task` for a task with
    options or another name, and above another `@schedule` for several schedules.
    """

    def register(handler: Callable[..., Any]) -> AnyTask:
        definition: AnyTask = handler if isinstance(handler, Task) else task(name)(handler)
        add_schedule(name, definition, when, **options)
        return definition

    return register  # type: ignore[return-value]  # the overloads relate the types
