"""The app of the live updates: connects the publisher, and registers its checks."""

from __future__ import annotations

from django.apps import AppConfig


class AgentExecLiveConfig(AppConfig):
    """`INSTALLED_APPS = [..., "django_agentexec", "django_agentexec.live"]`."""

    name = "django_agentexec.live"
    label = "agentexec_live"
    verbose_name = "Agents, live"

    def ready(self) -> None:
        """Announce changes from this process on, and register the checks."""
        from .publisher import connect
        from .websocket import checks

        checks.install()

        connect()
