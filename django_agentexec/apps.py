"""The Django app. The first use of the task registry imports the modules with tasks."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class AgentExecConfig(AppConfig):
    """`INSTALLED_APPS = [..., "django_agentexec"]`."""

    name = "django_agentexec"
    label = "agentexec"
    verbose_name = _("Agents")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register checks, hooks, receivers and counters. No module of the package registers anything on import."""
        from . import checks, conf, embedded, forks, logs, queues, router_checks
        from .activity import bulk, streams
        from .approvals import expiry
        from .budgets import applicable
        from .children import propagation, tracker
        from .concurrency import publication
        from .costs import prices
        from .dispatch import push
        from .limits import bookkeeping, stores
        from .monitoring import metrics
        from .pool import builtin_services
        from .resilience import options
        from .telemetry import spans

        parts = (
            *(conf, forks, logs, checks, router_checks, embedded, queues),
            *(push, bulk, streams, propagation, tracker, prices),
            *(expiry, applicable, spans, builtin_services, publication, bookkeeping, stores, options),
        )
        for part in parts:
            part.install()
        metrics.connect()
