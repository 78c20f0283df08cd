"""System checks of the schedules' configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Error, register
from django.core.exceptions import ImproperlyConfigured
from django.db import router

from ..activity.store import database
from ..exceptions import ScheduleError
from .models import AgentSchedule
from .timing import default_zone


def check_zone(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Refuse a time zone that does not exist."""
    try:
        default_zone()
    except ImproperlyConfigured:
        return []  # told by the check of all settings
    except ScheduleError as error:
        return [Error(f"AGENTEXEC['SCHEDULER_TIMEZONE']: {error}", id="agentexec_schedules.E001")]
    return []


def check_database(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Refuse a router that parts schedules from activities: a due time and its activity share a transaction."""
    using = router.db_for_write(AgentSchedule)
    if using == database():
        return []
    return [
        Error(
            f"Schedules are in DATABASES[{using!r}], but activities in DATABASES[{database()!r}].",
            hint="Let DATABASE_ROUTERS send agentexec, agentexec_schedules and django_celery_beat to the same one.",
            id="agentexec_schedules.E002",
        )
    ]


def install() -> None:
    """Register the checks; called when the app is ready."""
    for check in (check_zone, check_database):
        register(check, "agentexec")
