"""The base of the commands: one set of exit codes, one way to print, one way to fail."""

from __future__ import annotations

import argparse
import shutil
import sys
from typing import Any

from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError, CommandParser, OutputWrapper
from django.core.management.color import Style
from django.db import DatabaseError, InterfaceError

from ..activity.store import database
from ..exceptions import ActivityNotFound, AgentExecError, InvalidContext, InvalidOption, UnknownTask
from ..models import Status
from .pipes import PipeSafeCommand, discard_output
from .text import clean, table, to_json

OK = 0
FAILED = 1
"""A run failed or was canceled, something was refused, or a server is away."""
USAGE = 2
NOT_FOUND = 3
TIMEOUT = 124
"""As of `timeout` of the GNU tools."""

EXIT_CODES = """
exit codes:
  0    done
  1    the run failed or was canceled, something was refused, or a server is away
  2    wrong arguments or context
  3    no such activity or task
  124  not ended within the time
"""


class Output:
    """Where a verb writes: its answer to stdout, everything about it to stderr."""

    def __init__(self, stdout: OutputWrapper, stderr: OutputWrapper, style: Style) -> None:
        self._stdout, self._stderr, self.style = stdout, stderr, style

    def write(self, text: str) -> None:
        """Write a part of the answer."""
        self._stdout.write(clean(text))

    def json(self, value: object) -> None:
        """Write the answer as JSON: a schema, or what JSON holds."""
        self._stdout.write(to_json(value))

    def table(self, header: list[str], rows: list[list[object]], right: str = "") -> None:
        """Write columns, no wider than the terminal if it is one."""
        cells = shutil.get_terminal_size().columns if self._stdout.isatty() else None
        self._stdout.write(table(header, rows, right=right, cells=cells))

    def status(self, status: Status | str, text: str) -> None:
        """Write a line in the colour of a status."""
        styles = {
            Status.COMPLETE: self.style.SUCCESS,
            Status.ERROR: self.style.ERROR,
            Status.CANCELED: self.style.WARNING,
        }
        paint = styles.get(Status(status))
        self._stdout.write(paint(clean(text)) if paint else clean(text))

    def note(self, text: str) -> None:
        """Write something that is not the answer."""
        self._stderr.write(clean(text), lambda plain: plain)


class TerminalCommand(PipeSafeCommand):
    """A command whose `run` returns its exit code, and whose errors end as one line with their own code."""

    requires_system_checks = ["agentexec"]
    epilog = EXIT_CODES

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Keep the lines of the epilog."""
        kwargs.setdefault("epilog", self.epilog)
        return super().create_parser(
            prog_name, subcommand, formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs
        )

    def check(self, *args: Any, **kwargs: Any) -> None:
        """Refuse to run with a wrong configuration. Warnings are for `manage.py check`, not for each call."""
        messages = run_checks(tags=list(self.requires_system_checks))
        if any(message.is_serious() and not message.is_silenced() for message in messages):
            super().check(*args, **kwargs)

    def run(self, out: Output, options: dict[str, Any]) -> int:
        """Do the work, and return the exit code."""
        raise NotImplementedError

    def handle(self, *args: Any, **options: Any) -> None:
        """Call `run`; exit with its code if that is not 0."""
        try:
            code = self.run(Output(self.stdout, self.stderr, self.style), options)
            self.stdout.flush()
        except (ActivityNotFound, UnknownTask) as error:
            raise CommandError(clean(error), returncode=NOT_FOUND) from error
        except (InvalidOption, InvalidContext) as error:
            raise CommandError(clean(error), returncode=USAGE) from error
        except TimeoutError as error:
            raise CommandError(clean(error), returncode=TIMEOUT) from error
        except (AgentExecError, ImproperlyConfigured) as error:
            raise CommandError(clean(error), returncode=FAILED) from error
        except (DatabaseError, InterfaceError) as error:
            reason = clean(error).strip()
            raise CommandError(
                f"DATABASES[{database()!r}] cannot be used: {reason}. Is it up, and was manage.py migrate run?",
                returncode=FAILED,
            ) from error
        except BrokenPipeError:
            discard_output()
            code = OK
        if code:
            sys.exit(code)
