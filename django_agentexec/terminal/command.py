"""The base classes of the commands: subcommands, their output, exit codes and errors."""

from __future__ import annotations

import argparse
import getpass
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError, CommandParser, OutputWrapper
from django.core.management.color import Style
from django.db import DatabaseError, InterfaceError
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..activity.store import database
from ..exceptions import ActivityNotFound, AgentExecError, ApprovalNotFound, InvalidContext, InvalidOption, UnknownTask
from ..models import Status
from .pipes import PipeSafeCommand, discard_output
from .text import clean, table, to_json

OK = 0
FAILED = 1
"""The run failed or was canceled, a change was refused, or a server is unavailable."""
USAGE = 2
NOT_FOUND = 3
TIMEOUT = 124
"""As of `timeout` of the GNU tools."""

Text = str | Promise

EXIT_CODES = gettext_lazy("""
exit codes:
  0    done
  1    the activity failed or was canceled, a change was refused, or a server is unavailable
  2    invalid arguments or context
  3    the activity, approval or task does not exist
  124  the activity did not end within the timeout
""")


class Output:
    """The streams of a command: the answer goes to stdout, remarks about it go to stderr."""

    def __init__(self, stdout: OutputWrapper, stderr: OutputWrapper, style: Style) -> None:
        self._stdout, self._stderr, self.style = stdout, stderr, style

    @property
    def is_terminal(self) -> bool:
        """Whether stdout is a terminal."""
        return bool(self._stdout.isatty())

    @property
    def columns(self) -> int | None:
        """The width of the terminal, or None where stdout is a file or a pipe."""
        return shutil.get_terminal_size().columns if self.is_terminal else None

    def write(self, text: str) -> None:
        """Write a part of the answer."""
        self._stdout.write(clean(text))

    def json(self, value: object) -> None:
        """Write the answer as JSON: a schema, or JSON values."""
        self._stdout.write(to_json(value))

    def table(self, header: list[str], rows: list[list[object]], right: Iterable[int] = ()) -> None:
        """Write aligned columns, cut to the width of the terminal. The columns at the indexes `right` align right."""
        self._stdout.write(table(header, rows, right=right, cells=self.columns))

    def status(self, status: Status | str, text: str) -> None:
        """Write a line in the color of a status."""
        styles = {
            Status.COMPLETE: self.style.SUCCESS,
            Status.ERROR: self.style.ERROR,
            Status.CANCELED: self.style.WARNING,
        }
        paint = styles.get(Status(status))
        self._stdout.write(paint(clean(text)) if paint else clean(text))

    def note(self, text: str) -> None:
        """Write a remark to stderr."""
        self._stderr.write(clean(text), lambda plain: plain)

    def flush(self) -> None:
        """Flush stdout."""
        self._stdout.flush()


class Subcommand(ABC):
    """A subcommand of `manage.py agentexec`; `StandaloneCommand` makes a command of it."""

    help: ClassVar[Text]
    """The summary of the subcommand, one line."""
    epilog: ClassVar[Text] = EXIT_CODES
    """The end of the subcommand's help."""

    @abstractmethod
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""

    @abstractmethod
    def run(self, out: Output, options: dict[str, Any]) -> int:
        """Run the subcommand, and return its exit code."""


class TerminalCommand(PipeSafeCommand):
    """A command whose `run` returns its exit code, and whose errors are printed in one line, each with its code."""

    requires_system_checks = ["agentexec"]
    epilog: Text = EXIT_CODES

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Keep the line breaks of the epilog."""
        kwargs.setdefault("epilog", str(self.epilog))
        return super().create_parser(
            prog_name, subcommand, formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs
        )

    def check(self, *args: Any, **kwargs: Any) -> None:
        """Refuse to run with an invalid configuration. `manage.py check` prints the warnings."""
        messages = run_checks(tags=list(self.requires_system_checks))
        if any(message.is_serious() and not message.is_silenced() for message in messages):
            super().check(*args, **kwargs)

    def run(self, out: Output, options: dict[str, Any]) -> int:
        """Run the command, and return its exit code."""
        raise NotImplementedError

    def handle(self, *args: Any, **options: Any) -> None:
        """Call `run`, and exit with its code unless that is 0."""
        try:
            code = self.run(Output(self.stdout, self.stderr, self.style), options)
            self.stdout.flush()
        except (ActivityNotFound, ApprovalNotFound, UnknownTask) as error:
            raise CommandError(clean(error), returncode=NOT_FOUND) from error
        except (InvalidOption, InvalidContext) as error:
            raise CommandError(clean(error), returncode=USAGE) from error
        except TimeoutError as error:
            raise CommandError(clean(error), returncode=TIMEOUT) from error
        except (AgentExecError, ImproperlyConfigured) as error:
            raise CommandError(clean(error), returncode=FAILED) from error
        except (DatabaseError, InterfaceError) as error:
            text = _(
                "DATABASES[%(alias)r] is unavailable: %(reason)s. Check that its server runs and that "
                "manage.py migrate was run."
            )
            reason = clean(error).strip()
            raise CommandError(text % {"alias": database(), "reason": reason}, returncode=FAILED) from error
        except BrokenPipeError:
            discard_output()
            code = OK
        if code:
            sys.exit(code)


class GroupCommand(TerminalCommand):
    """A command with subcommands."""

    summary: ClassVar[Text]
    subcommands: ClassVar[dict[str, Subcommand]]

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Use the summary in the current language."""
        self.help = str(self.summary)
        return super().create_parser(prog_name, subcommand, **kwargs)

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the subcommands with their arguments."""
        group = parser.add_subparsers(dest="subcommand", required=True, metavar="subcommand")
        for name, subcommand in self.subcommands.items():
            subcommand.add_arguments(
                group.add_parser(
                    name,
                    help=str(subcommand.help),
                    description=str(subcommand.help),
                    epilog=str(subcommand.epilog),
                    formatter_class=argparse.RawDescriptionHelpFormatter,
                )
            )

    def run(self, out: Output, options: dict[str, Any]) -> int:
        """Run the chosen subcommand."""
        return self.subcommands[options["subcommand"]].run(out, options)


class StandaloneCommand(TerminalCommand):
    """A subcommand under a name of its former command."""

    subcommand: ClassVar[Subcommand]

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Use the help of the subcommand."""
        self.help = str(self.subcommand.help)
        return super().create_parser(prog_name, subcommand, epilog=str(self.subcommand.epilog), **kwargs)

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the arguments of the subcommand."""
        self.subcommand.add_arguments(parser)

    def run(self, out: Output, options: dict[str, Any]) -> int:
        """Run the subcommand."""
        return self.subcommand.run(out, options)


def account_actor() -> str:
    """Return the actor of a command that runs without a user of the project, such as `terminal:root`."""
    try:
        return f"terminal:{getpass.getuser()}"
    except (OSError, KeyError, ImportError):  # a container's account may have no name
        return "terminal:?"
