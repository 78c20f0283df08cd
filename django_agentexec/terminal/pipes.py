"""Output into a pipe whose reader has ended, as in `manage.py ... | head -1`: no reason for a traceback."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any

from django.core.management.base import BaseCommand


def discard_output() -> None:
    """Write whatever follows to nowhere: the interpreter flushes again at its end."""
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        with suppress(OSError, ValueError):  # a stream that is no file, or is closed
            os.dup2(null, sys.stdout.fileno())
    finally:
        os.close(null)


class PipeSafeCommand(BaseCommand):
    """A command whose output may be cut off."""

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Execute it, and flush the output while a closed pipe can still be dealt with."""
        try:
            output: str | None = super().execute(*args, **options)
        except BrokenPipeError:
            discard_output()
            return None
        finally:
            self.flush()
        return output

    def say(self, text: str) -> None:
        """Write a line that may as well be lost."""
        try:
            self.stdout.write(text)
        except BrokenPipeError:
            discard_output()
        self.flush()

    def flush(self) -> None:
        """Write what is buffered."""
        try:
            self.stdout.flush()
        except BrokenPipeError:
            discard_output()
