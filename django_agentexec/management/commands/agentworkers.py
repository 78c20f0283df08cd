"""`manage.py agentworkers`: `manage.py agentexec workers` under its former name."""

from __future__ import annotations

from django_agentexec.terminal.command import StandaloneCommand
from django_agentexec.terminal.workers import Workers


class Command(StandaloneCommand):
    """The list of workers."""

    subcommand = Workers()
