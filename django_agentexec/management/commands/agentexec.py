"""`manage.py agentexec`: all commands of the package as subcommands."""

from __future__ import annotations

import argparse
from typing import Any, cast

from django.core.management.base import CommandParser
from django.utils.translation import gettext_lazy

from django_agentexec.terminal.actions import Cancel, Retry
from django_agentexec.terminal.approvals import Approvals
from django_agentexec.terminal.budgets import Budgets
from django_agentexec.terminal.command import OK, GroupCommand, Output, Subcommand
from django_agentexec.terminal.enqueue import Enqueue
from django_agentexec.terminal.listing import List
from django_agentexec.terminal.monitor import Monitor
from django_agentexec.terminal.pauses import PauseCommand, Resume
from django_agentexec.terminal.prune import Prune
from django_agentexec.terminal.result import Result
from django_agentexec.terminal.run_one import RunOne
from django_agentexec.terminal.show import Show
from django_agentexec.terminal.types import Types
from django_agentexec.terminal.usage import Usage
from django_agentexec.terminal.workers import Health, Workers

from . import runagentworkers


class Run(Subcommand):
    """A pool of worker processes, as started by `runagentworkers`."""

    help = gettext_lazy("run a pool of worker processes that execute enqueued activities")
    epilog = runagentworkers.EPILOG

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments of `runagentworkers`."""
        runagentworkers.Command().add_arguments(cast("CommandParser", parser))

    def run(self, out: Output, options: dict[str, Any]) -> int:
        """Run `runagentworkers`, with its checks of migrations; it exits with its own code."""
        runagentworkers.Command().execute(**options)
        return OK


class Command(GroupCommand):
    """The command of the package."""

    summary = gettext_lazy("Run workers, watch and change activities, and enqueue tasks.")
    subcommands = {
        "run": Run(),
        "run-one": RunOne(),
        "monitor": Monitor(),
        "list": List(),
        "show": Show(),
        "cancel": Cancel(),
        "retry": Retry(),
        "approvals": Approvals(),
        "enqueue": Enqueue(),
        "result": Result(),
        "pause": PauseCommand(),
        "resume": Resume(),
        "workers": Workers(),
        "health": Health(),
        "prune": Prune(),
        "types": Types(),
        "usage": Usage(),
        "budgets": Budgets(),
    }
