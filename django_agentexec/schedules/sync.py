"""Takes the schedules in the code over into rows. Called by each scheduler when it starts.

The rule: a definition in the code is taken over when it is new or has changed since it was taken over last; until
then, whatever an operator edits stays. Being enabled is the operator's matter: the code turns on what is new or
has come back, and off what has vanished, and nothing else.
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
from .models import TIMERS, AgentSchedule, Origin

logger = logging.getLogger(__name__)

_MODELS: dict[str, type[models.Model]] = {
    "crontab": CrontabSchedule,
    "interval": IntervalSchedule,
    "clocked": ClockedSchedule,
    "solar": SolarSchedule,
}


def take_over_declarations(now: datetime) -> None:
    """Create, update and disable rows; one declaration that cannot work leaves the others alone."""
    declarations = declared()
    for declaration in declarations:
        try:
            _take_over_once_more(declaration, now)
        except (OperationalError, InterfaceError):
            raise  # the database is away, or busy: all of them wait
        except Exception as error:  # a context's own code may raise anything
            known = isinstance(error, AgentExecError)
            logger.error("Schedule %r of the code is left out: %s", declaration.name, error, exc_info=not known)
    _disable_vanished([declaration.name for declaration in declarations])


def _take_over_once_more(declaration: Declaration, now: datetime) -> None:
    try:
        _take_over(declaration, now)
    except IntegrityError:  # another pool, started at the same time, has made the row
        _take_over(declaration, now)


def _take_over(declaration: Declaration, now: datetime) -> None:
    digest = declaration.digest()
    with transaction.atomic(using=database()):
        row = AgentSchedule.objects.using(database()).select_for_update().filter(name=declaration.name).first()
        if row is None:
            row = AgentSchedule(name=declaration.name, origin=Origin.CODE)
        elif row.origin != Origin.CODE:
            raise ScheduleError("a schedule of this name was made in the admin; rename or delete one of them")
        elif row.digest == digest:
            return
        elif not row.digest:
            row.enabled = True  # it had vanished
        timer = _timer_row(declaration)
        for name in TIMERS:
            setattr(row, name, timer if name == declaration.timer else None)
        for name, value in {**declaration.columns(), "timezone": "", "digest": digest}.items():
            setattr(row, name, value)
        row.plan(now)
        row.save(using=database())
    logger.info("Schedule %s was taken over from the code.", row)


def _timer_row(declaration: Declaration) -> models.Model:
    """Return the row of django-celery-beat with these times, made if there is none."""
    manager: Any = _MODELS[declaration.timer]._default_manager.using(database())
    found: models.Model | None = manager.filter(**declaration.timer_fields).first()
    if found is None:
        found = _MODELS[declaration.timer](**declaration.timer_fields)
        found.full_clean(validate_unique=False)
        found.save(using=database())
        found.refresh_from_db()
    return found


def _disable_vanished(names: Sequence[str]) -> None:
    rows = AgentSchedule.objects.using(database()).filter(origin=Origin.CODE).exclude(digest="")
    vanished = rows.exclude(name__in=names)
    for row in vanished:
        logger.warning("Schedule %s is disabled: it has vanished from the code.", row)
    vanished.update(enabled=False, digest="", next_run_at=None, timing="")
