"""Output into a pipe whose reader ends early, or of an encoding without a character, without a traceback."""

from __future__ import annotations

import codecs
import json
import os
import sys
from contextlib import suppress
from io import TextIOWrapper
from typing import Any

from django.core.management.base import BaseCommand

ESCAPE = "agentexec.escape"  # the name of the codec error handler


def discard_output() -> None:
    """Redirect stdout to the null device, since the interpreter flushes it again when it exits."""
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        with suppress(OSError, ValueError):  # stdout is not a file, or is closed
            os.dup2(null, sys.stdout.fileno())
    finally:
        os.close(null)


def escape_unknown_characters() -> None:
    r"""Write characters that the encoding of stdout lacks as `\uXXXX`, which is also valid in JSON.

    Texts of agents contain any character; the encoding is that of the terminal or the locale.
    """
    output = sys.stdout
    if not isinstance(output, TextIOWrapper) or output.errors not in {"strict", "surrogateescape"}:
        return
    if codecs.lookup(output.encoding).name != "utf-8":
        codecs.register_error(ESCAPE, _escape)
        output.reconfigure(errors=ESCAPE)


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


class PipeSafeCommand(BaseCommand):
    """A command whose output may be cut off by its reader."""

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Run the command, and flush its output while a closed pipe can still be handled."""
        escape_unknown_characters()
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
