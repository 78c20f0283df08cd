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
        from . import checks, conf, log_text, router_checks
        from .activity import waiting
        from .children import propagation, tracker
        from .monitoring import metrics

        for part in (conf, checks, router_checks, waiting, propagation, tracker):
            part.install()
        metrics.connect()
        log_text.escape_tracebacks()
