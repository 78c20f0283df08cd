"""`manage.py prune_activities`: `manage.py agentexec prune` under its former name."""

from __future__ import annotations

from django_agentexec.terminal.command import StandaloneCommand
from django_agentexec.terminal.prune import Prune


class Command(StandaloneCommand):
    """The deletion of old activities."""

    subcommand = Prune()
