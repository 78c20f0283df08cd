"""The app: gives every pool a scheduler."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.apps import AppConfig, apps
from django.core.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from .scheduler import Scheduler


class SchedulesConfig(AppConfig):
    """`INSTALLED_APPS = [..., "django_celery_beat", "django_agentexec", "django_agentexec.schedules"]`."""

    name = "django_agentexec.schedules"
    label = "agentexec_schedules"
    verbose_name = "Agent schedules"
    default_auto_field = "django.db.models.BigAutoField"

    def import_models(self) -> None:
        """Import the models, which point at django-celery-beat's."""
        if not apps.is_installed("django_celery_beat"):
            raise ImproperlyConfigured(
                "'django_agentexec.schedules' needs 'django_celery_beat' in INSTALLED_APPS, too "
                "(pip install 'django-agentexec[beat]')."
            )
        super().import_models()

    def ready(self) -> None:
        """Register the checks and the pool's duty."""
        from ..pool.services import register_service
        from . import checks

        checks.install()
        register_service("scheduler", _make_scheduler, app_label=self.label)


def _make_scheduler(holder: str) -> Scheduler:
    """Import the scheduler in pools only."""
    from .scheduler import Scheduler

    return Scheduler(holder)
