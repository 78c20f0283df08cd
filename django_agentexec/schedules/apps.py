"""The Django app of schedules, which adds a scheduler to every pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.apps import AppConfig, apps
from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from .scheduler import Scheduler


class SchedulesConfig(AppConfig):
    """`INSTALLED_APPS = [..., "django_celery_beat", "django_agentexec", "django_agentexec.schedules"]`."""

    name = "django_agentexec.schedules"
    label = "agentexec_schedules"
    verbose_name = _("Agent schedules")
    default_auto_field = "django.db.models.BigAutoField"

    def import_models(self) -> None:
        """Import the models, which have foreign keys to models of django-celery-beat."""
        if not apps.is_installed("django_celery_beat"):
            raise ImproperlyConfigured(
                "'django_agentexec.schedules' also needs 'django_celery_beat' in INSTALLED_APPS "
                "(pip install 'django-agentexec[beat]')."
            )
        super().import_models()

    def ready(self) -> None:
        """Register the system checks and the scheduler as a service of pools."""
        from ..pool.services import register_service
        from . import checks

        checks.install()
        register_service("scheduler", _make_scheduler, app_label=self.label)


def _make_scheduler(holder: str) -> Scheduler:
    """Return a scheduler. Imported here, because only pools need it."""
    from .scheduler import Scheduler

    return Scheduler(holder)
