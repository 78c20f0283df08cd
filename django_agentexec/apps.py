"""The app: registers the system checks, and counts. Importing `agents` modules is left to the registry's first use."""

from __future__ import annotations

from django.apps import AppConfig


class AgentExecConfig(AppConfig):
    """`INSTALLED_APPS = [..., "django_agentexec"]`."""

    name = "django_agentexec"
    label = "agentexec"
    verbose_name = "Agents"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the checks, start counting, and let the trackers hear of ends."""
        from . import checks, router_checks, tracker  # noqa: F401  # register on import
        from .monitoring import metrics

        metrics.connect()
