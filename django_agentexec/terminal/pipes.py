"""Output into a pipe whose reader ends early, as in `manage.py ... | head -1`, without a traceback."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any

from django.core.management.base import BaseCommand


def discard_output() -> None:
    """Redirect stdout to the null device, since the interpreter flushes it again when it exits."""
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        with suppress(OSError, ValueError):  # stdout is not a file, or is closed
            os.dup2(null, sys.stdout.fileno())
    finally:
        os.close(null)


class PipeSafeCommand(BaseCommand):
    """A command whose output may be cut off by its reader."""

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Run the command, and flush its output while a closed pipe can still be handled."""
        try:
            output: str | None = super().execute(*args, **options)
        except BrokenPipeError:
            discard_output()
            return None
        finally:
            self.flush()
        return output

    def say(self, text: str) -> None:
        """Write a line, or discard it if the pipe is closed."""
        try:
            self.stdout.write(text)
        except BrokenPipeError:
            discard_output()
        self.flush()

    def flush(self) -> None:
        """Flush stdout; discard its buffer if the pipe is closed."""
        try:
            self.stdout.flush()
        except BrokenPipeError:
            discard_output()
