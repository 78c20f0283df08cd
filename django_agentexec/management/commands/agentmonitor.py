"""`manage.py agentmonitor`: active runs, workers and queues, live in the terminal."""

from __future__ import annotations

import os
import shutil
import signal
import time
from typing import Any

from django.core.management.base import CommandError, CommandParser

from django_agentexec.terminal.command import FAILED, OK, Output, TerminalCommand
from django_agentexec.terminal.durations import interval, positive
from django_agentexec.terminal.keys import single_keys
from django_agentexec.terminal.snapshot import as_text, take, take_or_tell

QUIT = "qQ"
EPILOG = """
On a terminal the screen is drawn anew every --interval seconds, until q or Ctrl-C. Into a file or a pipe,
plain text is written as often. Redis or a database that is away is told, and waited for.

exit codes:
  0  quit, or --once
  1  rich is missing; or, with --once, the database is away
  2  wrong arguments
"""


class Command(TerminalCommand):
    """Watches."""

    help = "Watch active runs, workers and queues."
    epilog = EPILOG

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "--interval", type=interval, default=1.0, metavar="SECONDS", help="between two looks (1), 0.1 at least"
        )
        parser.add_argument("--limit", type=positive, default=100, metavar="N", help="runs that are shown (100)")
        parser.add_argument("--once", action="store_true", help="look once, and write plain text")
        parser.add_argument("--json", action="store_true", help='with --once: {"overview": ..., "activities": [...]}')

    def run(self, out: Output, options: dict[str, Any]) -> int:
        """Show it, once or until the end."""
        if options["json"] and not options["once"]:
            raise CommandError("--json goes with --once.", returncode=2)
        if options["once"]:
            snapshot = take(options["limit"])
            if options["json"]:
                out.json(snapshot.as_json())
            else:
                out.write(as_text(snapshot, self._cells()))
            return OK
        before = signal.signal(signal.SIGTERM, _interrupt)  # leaves the terminal as clean as Ctrl-C does
        try:
            if self.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb":
                self._watch(options["interval"], options["limit"])
            else:
                self._print(out, options["interval"], options["limit"])
        except KeyboardInterrupt:
            pass
        finally:
            signal.signal(signal.SIGTERM, before)
        return OK

    def _watch(self, pause: float, limit: int) -> None:
        try:
            from django_agentexec.terminal.screen import live_screen
        except ModuleNotFoundError as error:
            raise CommandError(
                f"The live screen needs {error.name}: pip install 'django-agentexec[terminal]'. "
                "Without it there is --once, and plain text into a pipe: manage.py agentmonitor | cat",
                returncode=FAILED,
            ) from error
        with single_keys() as keys, live_screen(pause) as screen:
            screen.show(take_or_tell(limit))
            while not keys.wait(pause, QUIT):
                screen.show(take_or_tell(limit))

    def _print(self, out: Output, pause: float, limit: int) -> None:
        while True:
            out.write(as_text(take_or_tell(limit), self._cells()))
            self.stdout.flush()
            time.sleep(pause)

    def _cells(self) -> int | None:
        return shutil.get_terminal_size().columns if self.stdout.isatty() else None


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
