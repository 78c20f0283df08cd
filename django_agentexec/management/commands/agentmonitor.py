"""`manage.py agentmonitor`: `manage.py agentexec monitor` under its former name."""

from __future__ import annotations

from django_agentexec.terminal.command import StandaloneCommand
from django_agentexec.terminal.monitor import Monitor


class Command(StandaloneCommand):
    """The monitor."""

    subcommand = Monitor()
