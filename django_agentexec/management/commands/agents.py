"""`manage.py agents`: a part of `manage.py agentexec` under its former name."""

from __future__ import annotations

from django.utils.translation import gettext_lazy

from django_agentexec.terminal.command import GroupCommand

from . import agentexec

NAMES = ("list", "show", "cancel", "retry", "enqueue", "result")


class Command(GroupCommand):
    """The subcommands for activities."""

    summary = gettext_lazy("List, show, cancel, retry and enqueue activities, and print their results.")
    subcommands = {name: agentexec.Command.subcommands[name] for name in NAMES}
