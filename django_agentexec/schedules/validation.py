"""Checks of a schedule before it is saved: everything that would fail at its due time, told by field."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

from django.core.exceptions import ObjectDoesNotExist, ValidationError
from django.utils import timezone
from pydantic import BaseModel
from pydantic import ValidationError as PydanticError

from ..exceptions import AgentExecError, InvalidContext, ScheduleError, UnknownTask
from ..tasks import TaskDefinition, registry
from ..tasks.options import validate_queue
from ..validation import one_line, validate_metadata
from .models import TIMERS, AgentSchedule
from .timing import as_utc

Problems = dict[str, list[str]]


def check_schedule(schedule: AgentSchedule) -> None:
    """Raise `ValidationError` with what is wrong, by field."""
    problems: Problems = {}
    _check_task(schedule, problems)
    _check("metadata", problems, lambda: validate_metadata(_as_object(schedule.metadata)))
    if schedule.queue:
        _check("queue", problems, lambda: validate_queue(schedule.queue))
    if _check_timers(schedule, problems):
        _check_times(schedule, problems)
    if problems:
        raise ValidationError(problems)


def load_context(definition: TaskDefinition[..., Any], content: object) -> BaseModel:
    """Return a stored context in its task's type. Raises `InvalidContext`, naming each field that is wrong."""
    try:
        context: BaseModel = definition.load_context(json.dumps(content))
        definition.lock_key(context)
    except PydanticError as error:
        raise InvalidContext("; ".join(context_problems(error))) from error
    except InvalidContext:
        raise
    except Exception as error:  # a context's own validators may raise anything
        raise InvalidContext(one_line(error)) from error
    return context


def context_problems(error: PydanticError) -> list[str]:
    """Return one line for each field of a context that is wrong."""
    return [
        f"{'.'.join(str(part) for part in problem['loc']) or 'context'}: {problem['msg']}"
        for problem in error.errors(include_url=False, include_input=False, include_context=False)
    ]


def _check_task(schedule: AgentSchedule, problems: Problems) -> None:
    if not schedule.task:
        return  # told by the field itself
    try:
        definition = registry.get(schedule.task)
    except UnknownTask as error:
        problems["task"] = [str(error)]
        return
    try:
        load_context(definition, schedule.context)
    except InvalidContext as error:
        cause = error.__cause__
        problems["context"] = context_problems(cause) if isinstance(cause, PydanticError) else [str(error)]


def _check_timers(schedule: AgentSchedule, problems: Problems) -> bool:
    try:
        chosen = [name for name in TIMERS if getattr(schedule, name)]
    except ObjectDoesNotExist:
        return False  # told by the field itself
    if len(chosen) == 1:
        return True
    for name in chosen:  # that there is one, the constraint tells
        problems[name] = [f"Choose one only; there are {' and '.join(chosen)}."]
    return False


def _check_times(schedule: AgentSchedule, problems: Problems) -> None:
    if schedule.timezone and not schedule.crontab:
        problems["timezone"] = ["Only a crontab has a time zone; leave it empty."]
        return
    if not _check("timezone", problems, lambda: schedule.zone):
        return
    for name in ("start_at", "expires_at"):
        moment: datetime | None = getattr(schedule, name)
        if moment and not _check(name, problems, partial(as_utc, moment)):
            return
    if schedule.start_at and schedule.expires_at and schedule.start_at >= schedule.expires_at:
        problems["expires_at"] = ["It expires before it starts."]
        return
    timer = next(name for name in TIMERS if getattr(schedule, name))
    try:
        due = schedule.due_after(as_utc(timezone.now()))
    except ScheduleError as error:
        problems[timer] = [str(error)]
        return
    if due is None and schedule.enabled and not schedule.total_run_count:
        problems[timer] = ["It would never be due: that is over, or outside of start and expiry."]


def _check(field: str, problems: Problems, check: Callable[[], object]) -> bool:
    try:
        check()
    except AgentExecError as error:
        problems[field] = [str(error)]
        return False
    return True


def _as_object(metadata: object) -> dict[str, Any]:
    if not isinstance(metadata, dict):
        raise ScheduleError(f"Metadata is a JSON object such as {{}}, not {json.dumps(metadata)[:80]}.")
    return metadata
