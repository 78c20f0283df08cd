"""What of an error everybody may read: its class and a neutral sentence, unless its text was written for users.

Texts of exceptions name hosts, passwords and other customers. The row keeps them for those who may monitor.
"""

from __future__ import annotations

import re

from .conf import conf
from .exceptions import UserFacingError
from .validation import one_line

_CLASS = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}(?=:|$)")
_LAST_CLASS = re.compile(r"^(?:[A-Za-z_][A-Za-z0-9_]*\.)*([A-Za-z_][A-Za-z0-9_]{0,99})(?::|$)")


def text_for_everybody(error: BaseException, *, exposes_errors: bool = False) -> str | None:
    """Return what everybody may read of `error`, or None for its class alone.

    That is the text of a `UserFacingError`, and all of `one_line(error)` where the task exposes its errors.
    """
    if exposes_errors:
        return one_line(error)
    if isinstance(error, UserFacingError):
        return one_line(error).partition(": ")[2] or None
    return None


def neutral_error(error: str) -> str:
    """Return the class that an error's text begins with, and a sentence that tells nothing else."""
    found = _CLASS.match(error)
    return f"{found[0]}: {conf.ACTIVITY_MESSAGE_INTERNAL_ERROR}" if found else conf.ACTIVITY_MESSAGE_INTERNAL_ERROR


def public_error(error: str, public: str | None) -> str:
    """Return what everybody may read of a stored error: `public` if it belongs to it, else the neutral text."""
    if not error:
        return ""
    # A worker of an earlier release writes an error and leaves the public text of the one before.
    return public if public and error.endswith(public) else neutral_error(error)


def public_message_of(traceback: str) -> str:
    """Return a message in place of that of a failure whose public text was not stored, by its traceback."""
    last = [line for line in traceback.splitlines() if _LAST_CLASS.match(line)]
    found = _LAST_CLASS.match(last[-1]) if last else None
    return neutral_error(found[1] if found else "")
