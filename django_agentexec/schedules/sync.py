"""Synchronization of schedules declared in code with database rows. Called by each scheduler at its start.

A declaration is applied if it is new or has changed since it was last applied; otherwise edits in the admin are kept.
Operators decide whether a schedule is enabled: the code only enables new and restored schedules and disables removed
schedules.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.db import IntegrityError, InterfaceError, OperationalError, models, transaction
from django_celery_beat.models import ClockedSchedule, CrontabSchedule, IntervalSchedule, SolarSchedule

from ..activity.store import database
from ..exceptions import AgentExecError, ScheduleError
from .declarations import Declaration, declared
from .models import AgentSchedule, Origin
from .timing import TIMERS

logger = logging.getLogger(__name__)

_MODELS: dict[str, type[models.Model]] = {
    "crontab": CrontabSchedule,
    "interval": IntervalSchedule,
    "clocked": ClockedSchedule,
    "solar": SolarSchedule,
}


def sync_declarations(now: datetime) -> None:
    """Create, update and disable rows. An invalid declaration is logged and does not affect the others."""
    declarations = declared()
    for declaration in declarations:
        try:
            _apply_with_retry(declaration, now)
        except (OperationalError, InterfaceError):
            raise  # the database is unavailable or locked for all of them
        except Exception as error:  # code of a context may raise anything
            is_known = isinstance(error, AgentExecError)
            logger.error("Schedule %r in the code is ignored: %s", declaration.name, error, exc_info=not is_known)
    _disable_removed([declaration.name for declaration in declarations])


def _apply_with_retry(declaration: Declaration, now: datetime) -> None:
    try:
        _apply(declaration, now)
    except IntegrityError:  # another pool has created the row at the same time
        _apply(declaration, now)


def _apply(declaration: Declaration, now: datetime) -> None:
    digest = declaration.digest()
    with transaction.atomic(using=database()):
        row = AgentSchedule.objects.using(database()).select_for_update().filter(name=declaration.name).first()
        if row is None:
            row = AgentSchedule(name=declaration.name, origin=Origin.CODE)
        elif row.origin != Origin.CODE:
            raise ScheduleError("a schedule with this name was created in the admin; rename or delete one of them")
        elif row.digest == digest:
            return
        elif not row.digest:
            row.enabled = True  # it was removed from the code and is back
        timer = _timer_row(declaration)
        for name in TIMERS:
            setattr(row, name, timer if name == declaration.timer else None)
        for name, value in {**declaration.columns(), "timezone": "", "digest": digest}.items():
            setattr(row, name, value)
        row.plan(now)
        row.save(using=database())
    logger.info("Schedule %s was updated from the code.", row)


def _timer_row(declaration: Declaration) -> models.Model:
    """Return the django-celery-beat row with these times, or create it."""
    manager: Any = _MODELS[declaration.timer]._default_manager.using(database())
    found: models.Model | None = manager.filter(**declaration.timer_fields).first()
    if found is None:
        found = _MODELS[declaration.timer](**declaration.timer_fields)
        found.full_clean(validate_unique=False)
        found.save(using=database())
        found.refresh_from_db()
    return found


def _disable_removed(names: Sequence[str]) -> None:
    rows = AgentSchedule.objects.using(database()).filter(origin=Origin.CODE).exclude(digest="")
    removed = rows.exclude(name__in=names)
    for row in removed:
        logger.warning("Schedule %s is disabled, because it was removed from the code.", row)
    removed.update(enabled=False, digest="", next_run_at=None, timing="")
