"""System checks for the configuration of schedules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Error, register
from django.core.exceptions import ImproperlyConfigured
from django.db import router

from ..activity.store import database
from ..exceptions import ScheduleError
from .crontabs import default_zone
from .models import AgentSchedule


def check_zone(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Report an unknown time zone in `SCHEDULER_TIMEZONE`."""
    try:
        default_zone()
    except ImproperlyConfigured:
        return []  # reported by the check of all settings
    except ScheduleError as error:
        return [Error(f"AGENTEXEC['SCHEDULER_TIMEZONE']: {error}", id="agentexec_schedules.E001")]
    return []


def check_database(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Report a router that separates schedules from activities, which are written in the same transactions."""
    using = router.db_for_write(AgentSchedule)
    if using == database():
        return []
    return [
        Error(
            f"Schedules are in DATABASES[{using!r}], but activities in DATABASES[{database()!r}].",
            hint="Let DATABASE_ROUTERS use one database for agentexec, agentexec_schedules and django_celery_beat.",
            id="agentexec_schedules.E002",
        )
    ]


def install() -> None:
    """Register the system checks; called when the app is ready."""
    for check in (check_zone, check_database):
        register(check, "agentexec")
