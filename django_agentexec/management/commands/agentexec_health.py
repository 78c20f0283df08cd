"""`manage.py agentexec_health`: `manage.py agentexec health` under its former name."""

from __future__ import annotations

from django_agentexec.terminal.command import StandaloneCommand
from django_agentexec.terminal.workers import Health


class Command(StandaloneCommand):
    """The health check."""

    subcommand = Health()
