"""The Django app. Modules with tasks are imported later, by the registry's first use."""

from __future__ import annotations

from django.apps import AppConfig


class AgentExecConfig(AppConfig):
    """`INSTALLED_APPS = [..., "django_agentexec"]`."""

    name = "django_agentexec"
    label = "agentexec"
    verbose_name = "Agents"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register checks, hooks and counters. Nothing in the package registers itself on import."""
        from . import checks, log_text, router_checks
        from .activity import streams
        from .children import propagation, tracker
        from .monitoring import metrics
        from .tasks.enqueue import install as install_tasks

        for part in (checks, router_checks, propagation, tracker, streams):
            part.install()
        install_tasks()
        metrics.connect()
        log_text.escape_tracebacks()
