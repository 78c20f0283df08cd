"""The app of the live updates: connects the publisher and registers the system checks."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class AgentExecLiveConfig(AppConfig):
    """The app for `INSTALLED_APPS = [..., "django_agentexec", "django_agentexec.live"]`."""

    name = "django_agentexec.live"
    label = "agentexec_live"
    verbose_name = _("Agents, live")

    def ready(self) -> None:
        """Connect the publisher and register the checks."""
        from .publisher import connect  # models are available only now
        from .websocket import checks

        checks.install()
        connect()
