"""`manage.py agents`: list, show, cancel, retry, enqueue and result, for people and scripts."""

from __future__ import annotations

import argparse
from typing import Any, Protocol

from django.core.management.base import CommandParser

from django_agentexec.terminal import enqueuing, listing, outcome, show
from django_agentexec.terminal.command import EXIT_CODES, Output, TerminalCommand
from django_agentexec.terminal.steering import CANCEL, RETRY


class Action(Protocol):
    """A sub-command."""

    @property
    def HELP(self) -> str:
        """One line."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""

    def run(self, out: Output, options: dict[str, Any]) -> int:
        """Do the work; return the exit code."""


VERBS: dict[str, Action] = {
    "list": listing,
    "show": show,
    "cancel": CANCEL,
    "retry": RETRY,
    "enqueue": enqueuing,
    "result": outcome,
}


class Command(TerminalCommand):
    """Looks at activities and steers them."""

    help = "List, show, cancel, retry and enqueue activities, and print their results."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the sub-commands."""
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="verb")
        for name, verb in VERBS.items():
            verb.add_arguments(
                verbs.add_parser(
                    name,
                    help=verb.HELP,
                    description=verb.HELP,
                    epilog=EXIT_CODES,
                    formatter_class=argparse.RawDescriptionHelpFormatter,
                )
            )

    def run(self, out: Output, options: dict[str, Any]) -> int:
        """Hand over to the sub-command."""
        return VERBS[options["verb"]].run(out, options)
