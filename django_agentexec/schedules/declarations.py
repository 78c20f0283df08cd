"""Schedules in code: `@schedule` on a handler, `add_schedule` anywhere in an `agents` module.

They are kept here, checked, until a scheduler starts and `sync` makes them rows.
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
from ..tasks.options import validate_priority, validate_queue
from ..validation import MAX_COUNT, is_storable, is_storable_moment, validate_metadata

APP = "django_agentexec.schedules"
MAX_NAME = 200  # characters; the column's size
CRON_FIELDS = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
PERIODS = {"days": 86_400, "hours": 3_600, "minutes": 60, "seconds": 1}


@dataclass(frozen=True, slots=True)
class Solar:
    """A time given by the sun, such as `Solar("sunset", 52.52, 13.40)`: event, latitude, longitude (degrees)."""

    event: str
    latitude: float
    longitude: float


When = str | timedelta | int | float | datetime | Solar


class ScheduleOptions(TypedDict, total=False):
    """What `schedule` and `add_schedule` take besides the name and the times."""

    context: BaseModel | None
    timezone: str
    repeat: int | None
    start_at: datetime | None
    expires_at: datetime | None
    misfire: str
    priority: int | None
    queue: str
    metadata: Mapping[str, Any] | None
    description: str


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """A schedule as the code has it; raises `ScheduleError` or `InvalidOption` for what cannot work."""

    name: str
    task: str | AnyTask
    when: When
    context: BaseModel | None = None
    timezone: str = ""
    repeat: int | None = None
    start_at: datetime | None = None
    expires_at: datetime | None = None
    misfire: str = "skip"
    priority: int | None = None
    queue: str = ""
    metadata: Mapping[str, Any] | None = None
    description: str = ""
    timer: str = field(init=False)
    """The kind of django-celery-beat's schedule: `crontab`, `interval`, `clocked` or `solar`."""
    timer_fields: dict[str, Any] = field(init=False)
    """The fields of its row."""

    def __post_init__(self) -> None:
        if not apps.is_installed(APP):
            raise ScheduleError(f"Schedules need 'django_celery_beat' and {APP!r} in INSTALLED_APPS.")
        if not isinstance(self.name, str) or not 1 <= len(self.name) <= MAX_NAME or not is_storable(self.name):
            raise ScheduleError(
                f"A schedule's name has 1 to {MAX_NAME} characters, without NUL and halves of surrogate pairs, but "
                f"this is {self.name!r:.300}."
            )
        timer, fields = self._timer()
        object.__setattr__(self, "timer", timer)
        object.__setattr__(self, "timer_fields", fields)
        self._check_options()
        if isinstance(self.task, Task):
            self.stored_context()

    def stored_context(self) -> dict[str, Any]:
        """Return the context as JSON. Raises `ScheduleError` if it is not the task's, `UnknownTask`."""
        definition = registry.get(self.task) if isinstance(self.task, str) else self.task
        try:
            context = definition.context_type() if self.context is None else self.context
        except PydanticError as error:
            raise self._error(f"a {definition.context_type.__name__} is needed: context=...") from error
        try:
            # In one order in every process: the digest must not change with it.
            content: dict[str, Any] = in_one_order(context, definition.store_context(context))
        except InvalidContext as error:
            raise self._error(str(error).removesuffix(".")) from error
        return content

    @property
    def identity(self) -> tuple[str, str, dict[str, Any]]:
        """What two declarations of one name must share to be the same one, imported twice."""
        return self.task_name, self.timer, self.timer_fields

    @property
    def task_name(self) -> str:
        """The name of the task."""
        return self.task if isinstance(self.task, str) else self.task.name

    def columns(self) -> dict[str, Any]:
        """Return the schedule's own columns, without those of its timer. Raises as `stored_context` does."""
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
        """Return what changes whenever the definition does."""
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
                raise ValueError("minute, hour, day of month, month and day of week are five fields")
            crontab(**parts)
        except (ValueError, ParseException) as error:
            raise self._error(f"{text!r} is no crontab: {' '.join(str(error).split())}") from error
        return parts

    def _zone(self) -> object:
        from .timing import default_zone, zone_named

        return zone_named(self.timezone) if self.timezone else default_zone()

    def _interval(self, when: object) -> dict[str, Any]:
        seconds = when.total_seconds() if isinstance(when, timedelta) else when
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 1 <= seconds < 10**9:
            raise self._error(
                f"{when!r} is no time: give a crontab such as '*/5 * * * *', an interval (a timedelta, or seconds "
                "from 1), a datetime, or Solar(...)"
            )
        for period, length in PERIODS.items():
            if seconds % length == 0:
                return {"every": int(seconds // length), "period": period}
        microseconds = round(seconds * 1_000_000)
        if microseconds > MAX_COUNT:
            raise self._error(f"{when!r} has fractions of a second, which an interval above 35 minutes cannot have")
        return {"every": microseconds, "period": "microseconds"}

    def _degrees(self, value: float) -> Decimal:
        """Return a coordinate as its column has it: without the digits that a float adds."""
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not -180 <= value <= 180:
            raise self._error(f"{value!r} is no coordinate; give degrees from -180 to 180")
        return Decimal(str(round(value, 6)))

    def _check_options(self) -> None:
        if self.misfire not in ("skip", "catch_up"):
            raise self._error(f"misfire={self.misfire!r} must be 'skip' or 'catch_up'")
        if self.repeat is not None and (isinstance(self.repeat, bool) or not isinstance(self.repeat, int)):
            raise self._error(f"repeat={self.repeat!r} must be a number of runs")
        if self.repeat is not None and not 1 <= self.repeat <= MAX_COUNT:
            raise self._error(f"repeat={self.repeat!r} must be from 1 to {MAX_COUNT:,} runs; leave it out for no limit")
        if not isinstance(self.description, str) or not is_storable(self.description):
            raise self._error(f"description={self.description!r:.80} must be text, without NUL")
        for name in ("start_at", "expires_at", "when"):
            moment = getattr(self, name)
            if isinstance(moment, datetime) and timezone.is_naive(moment) and settings.USE_TZ:
                raise self._error(f"{name}={moment!r} has no time zone")
            if isinstance(moment, datetime) and not is_storable_moment(moment):
                raise self._error(f"{name}={moment!r} is at the edge of the calendar; use years from 2 to 9998")
        if self.start_at and self.expires_at and self.start_at >= self.expires_at:
            raise self._error("it expires before it starts")
        if self.priority is not None:
            validate_priority(self.priority)
        if self.queue:
            validate_queue(self.queue)
        validate_metadata(self.metadata)

    def _error(self, problem: str) -> ScheduleError:
        return ScheduleError(f"Schedule {self.name!r}: {problem}.")


_declarations: dict[str, Declaration] = {}


def declared() -> list[Declaration]:
    """Return every schedule in the code of installed apps. Imports their `agents` modules."""
    registry.discover()
    return list(_declarations.values())


def forget(name: str) -> None:
    """Take a schedule back; for tests."""
    _declarations.pop(name, None)


def add_schedule(name: str, task: str | AnyTask, when: When, **options: Unpack[ScheduleOptions]) -> None:
    """Have `task` enqueued at certain times. Call it where an `agents` module is imported.

    - `when`: a crontab of five fields, an interval (a timedelta, or seconds from 1), a datetime (once), or
      `Solar`.
    - `context`: the task's input; may be left out if the context's type needs no values.
    - `timezone`: of the crontab (`AGENTEXEC["SCHEDULER_TIMEZONE"]` unless said).
    - `repeat`: the number of runs in all; no limit unless said.
    - `start_at`, `expires_at`: aware datetimes; due from the first on, and before the second.
    - `misfire`: what becomes of runs that were missed, `"skip"` or `"catch_up"`: one run for all of them.
    - `priority`, `queue`, `metadata`: of the activities, instead of the task's own.

    Raises `ScheduleError` or `InvalidOption` for what cannot work.
    """
    declaration = Declaration(name=name, task=task, when=when, **options)
    known = _declarations.get(name)
    # A module that is imported once more declares the same again.
    if known is not None and known.identity != declaration.identity:
        raise ScheduleError(f"Two schedules are called {name!r}. Rename one of them.")
    _declarations[name] = declaration


def schedule(name: str, when: When, **options: Unpack[ScheduleOptions]) -> TaskDecorator:
    """Have the decorated task enqueued at certain times; see `add_schedule` for the options.

    On a plain function it registers the task, too, under the same name. Put it above `@task` for a task with
    options or another name, and above another `@schedule` for more than one.
    """

    def register(handler: Callable[..., Any]) -> AnyTask:
        definition: AnyTask = handler if isinstance(handler, Task) else task(name)(handler)
        add_schedule(name, definition, when, **options)
        return definition

    return register  # type: ignore[return-value]  # the overloads relate the types
