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
        """Register the checks, start counting, let the trackers hear of ends, and escape what is logged."""
        from . import checks, router_checks, tracker  # noqa: F401  # register on import
        from .log_text import escape_tracebacks
        from .monitoring import metrics

        metrics.connect()
        escape_tracebacks()
