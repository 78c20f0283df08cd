"""`agentexec monitor`: active runs, workers and queues, live in the terminal."""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.base import CommandError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .arguments import interval, positive
from .command import FAILED, OK, USAGE, Output, Subcommand
from .snapshot import as_text, take, take_or_report

QUIT_KEYS = "qQ"


class Monitor(Subcommand):
    """The monitor of active runs, workers and queues."""

    help = gettext_lazy("watch active activities, workers and queues")
    epilog = gettext_lazy("""
On a terminal the screen is redrawn every --interval seconds, until q or Ctrl-C. Into a file or a pipe, plain text is
written as often. While Redis or the database is unavailable, the output says so and continues when it is back.

exit codes:
  0  ended by the user, or done (--once)
  1  rich is missing; or, with --once, the database is unavailable
  2  invalid arguments
""")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""
        interval_help = _("seconds between two updates, at least 0.1 (default: 1)")
        parser.add_argument("--interval", type=interval, default=1.0, metavar="SECONDS", help=interval_help)
        parser.add_argument(
            "--limit", type=positive, default=100, metavar="N", help=_("maximum number of activities (default: 100)")
        )
        parser.add_argument("--once", action="store_true", help=_("write one snapshot as plain text, and exit"))
        json_help = _("with --once: print JSON: %(shape)s") % {"shape": '{"overview": ..., "activities": [...]}'}
        parser.add_argument("--json", action="store_true", help=json_help)

    def run(self, out: Output, options: dict[str, Any]) -> int:
        """Write one snapshot, or show snapshots until the user quits."""
        if options["json"] and not options["once"]:
            raise CommandError(_("--json requires --once."), returncode=USAGE)
        if options["once"]:
            snapshot = take(options["limit"])
            if options["json"]:
                out.json(snapshot.as_json())
            else:
                out.write(as_text(snapshot, out.columns))
            return OK
        before = signal.signal(signal.SIGTERM, _interrupt)  # restores the terminal, as after Ctrl-C
        try:
            if out.is_terminal and os.environ.get("TERM", "dumb") != "dumb":
                _watch(options["interval"], options["limit"])
            else:
                _print(out, options["interval"], options["limit"])
        except KeyboardInterrupt:
            pass
        finally:
            signal.signal(signal.SIGTERM, before)
        return OK


def _watch(pause: float, limit: int) -> None:
    try:
        from .screen import live_screen  # rich is an extra
    except ModuleNotFoundError as error:
        text = _(
            "The live screen needs %(module)s: pip install 'django-agentexec[terminal]'. Without it, use --once, or "
            "write plain text into a pipe: manage.py agentexec monitor | cat"
        )
        raise CommandError(text % {"module": error.name}, returncode=FAILED) from error
    with single_keys() as keys, live_screen(pause) as screen:
        screen.show(take_or_report(limit))
        while not keys.wait(pause, QUIT_KEYS):
            screen.show(take_or_report(limit))


def _print(out: Output, pause: float, limit: int) -> None:
    while True:
        out.write(as_text(take_or_report(limit), out.columns))
        out.flush()
        time.sleep(pause)


class Keys:
    """The keys of stdin. Where stdin is not a terminal, `wait` only sleeps."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def wait(self, timeout: float, keys: str) -> bool:
        """Wait up to `timeout` seconds, and return whether one of `keys` was pressed or the terminal was closed."""
        if self._descriptor is None:
            time.sleep(timeout)
            return False
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([self._descriptor], [], [], left)[0]:
                return False
            pressed = os.read(self._descriptor, 64).decode(errors="replace")
            if not pressed or any(key in keys for key in pressed):
                return True
        return False


@contextmanager
def single_keys() -> Iterator[Keys]:
    """Read single keys, without echo, inside the block."""
    if not sys.stdin.isatty():
        yield Keys(None)
        return
    import termios  # only where there is a terminal; Windows lacks both modules
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield Keys(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
