"""Validation of a schedule before it is saved: reports by field everything that would fail at a due time."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from django.core.exceptions import ObjectDoesNotExist, ValidationError
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.text import get_text_list
from django.utils.translation import gettext_lazy as _
from pydantic import BaseModel

from ..exceptions import AgentExecError, InvalidContext, ScheduleError, UnknownTask
from ..tasks import AnyTask, registry
from ..tasks.options import validate_queue
from ..validation import one_line, validate_metadata
from .timing import TIMERS, as_utc

if TYPE_CHECKING:
    from .models import AgentSchedule

Problems: TypeAlias = "dict[str, list[str | Promise]]"


def validate_schedule(schedule: AgentSchedule) -> None:
    """Raise `ValidationError` with all problems by field."""
    problems: Problems = {}
    _check_task(schedule, problems)
    _check("metadata", problems, lambda: validate_metadata(_as_object(schedule.metadata)))
    if schedule.queue:
        _check("queue", problems, lambda: validate_queue(schedule.queue))
    if _check_timers(schedule, problems):
        _check_times(schedule, problems)
    if problems:
        raise ValidationError(problems)


def load_context(definition: AnyTask, content: object) -> BaseModel:
    """Return a stored context in the type of its task. Raises `InvalidContext`, naming each invalid field."""
    try:
        context: BaseModel = definition.load_context(json.dumps(content))
        definition.lock_key(context)
    except InvalidContext as error:
        if error.problems:  # the user edits the context here, and needs no hint to retry it
            raise InvalidContext("; ".join(error.problems), error.problems) from None
        raise
    except Exception as error:  # validators of a context may raise anything
        raise InvalidContext(one_line(error)) from error
    return context


def _check_task(schedule: AgentSchedule, problems: Problems) -> None:
    if not schedule.task:
        return  # reported by the field itself
    try:
        definition = registry.get(schedule.task)
    except UnknownTask as error:
        problems["task"] = [str(error)]
        return
    try:
        load_context(definition, schedule.context)
    except InvalidContext as error:
        problems["context"] = list(error.problems or [str(error)])


def _check_timers(schedule: AgentSchedule, problems: Problems) -> bool:
    try:
        chosen = [name for name in TIMERS if getattr(schedule, name)]
    except ObjectDoesNotExist:
        return False  # reported by the field itself
    if len(chosen) == 1:
        return True
    for name in chosen:  # the check constraint reports that none is set
        problems[name] = [_("Choose a single timer: %(timers)s.") % {"timers": get_text_list(chosen)}]
    return False


def _check_times(schedule: AgentSchedule, problems: Problems) -> None:
    if schedule.timezone and not schedule.crontab:
        problems["timezone"] = [_("Only crontabs have a time zone. Leave this field empty.")]
        return
    if not _check("timezone", problems, lambda: schedule.zone):
        return
    for name in ("start_at", "expires_at"):
        moment: datetime | None = getattr(schedule, name)
        if moment and not _check(name, problems, partial(as_utc, moment)):
            return
    if schedule.start_at and schedule.expires_at and schedule.start_at >= schedule.expires_at:
        problems["expires_at"] = [_("The expiry must be later than the start.")]
        return
    timer = next(name for name in TIMERS if getattr(schedule, name))
    try:
        due = schedule.due_after(as_utc(timezone.now()))
    except ScheduleError as error:
        problems[timer] = [str(error)]
        return
    if due is None and schedule.enabled and not schedule.total_run_count:
        problems[timer] = [
            _("The schedule would never be due: its due times are in the past, or outside of start and expiry.")
        ]


def _check(field: str, problems: Problems, check: Callable[[], object]) -> bool:
    try:
        check()
    except AgentExecError as error:
        problems[field] = [str(error)]
        return False
    return True


def _as_object(metadata: object) -> dict[str, Any]:
    if not isinstance(metadata, dict):
        raise ScheduleError(
            _("Metadata must be a JSON object such as {}, not %(metadata)s.") % {"metadata": json.dumps(metadata)[:80]}
        )
    return metadata
