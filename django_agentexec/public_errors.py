"""The public part of errors: the class and a neutral sentence, unless the text was written for users.

Texts of exceptions may name hosts, passwords and other customers. The row keeps them for users with the monitor
permission.
"""

from __future__ import annotations

import re

from .conf import conf
from .exceptions import UserFacingError
from .validation import one_line

_CLASS = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}(?=:|$)")
_LAST_CLASS = re.compile(r"^(?:[A-Za-z_][A-Za-z0-9_]*\.)*([A-Za-z_][A-Za-z0-9_]{0,99})(?::|$)")


def public_text_of(error: BaseException, *, exposes_errors: bool = False) -> str | None:
    """Return the public text of `error`, or None if only its class is public.

    Public are the text of a `UserFacingError` and, if the task exposes its errors, all of `one_line(error)`.
    """
    if exposes_errors:
        return one_line(error)
    if isinstance(error, UserFacingError):
        return one_line(error).partition(": ")[2] or None
    return None


def neutral_error(error: str) -> str:
    """Return the class at the beginning of an error's text, followed by a neutral sentence."""
    found = _CLASS.match(error)
    return f"{found[0]}: {conf.ACTIVITY_MESSAGE_INTERNAL_ERROR}" if found else conf.ACTIVITY_MESSAGE_INTERNAL_ERROR


def public_error(error: str, public: str | None) -> str:
    """Return the public text of a stored error: `public` if it belongs to the error, else the neutral text."""
    if not error:
        return ""
    # A worker of an earlier release writes an error and leaves the public text of the previous error.
    return public if public and error.endswith(public) else neutral_error(error)


def public_message_of(traceback: str) -> str:
    """Return a neutral message for a failure without a stored public text, from its traceback."""
    class_lines = [line for line in traceback.splitlines() if _LAST_CLASS.match(line)]
    found = _LAST_CLASS.match(class_lines[-1]) if class_lines else None
    return neutral_error(found[1] if found else "")
