"""In whose name a command acts: the account of the machine, or a user of the project."""

from __future__ import annotations

import getpass
from typing import Any

from django.contrib.auth import get_user_model

from ..exceptions import InvalidOption

HELP = "act as this user of the project: the task's authorize is asked, and the user is noted"


def account() -> str:
    """Return the name under which a command without a user is noted, such as `terminal:root`."""
    try:
        return f"terminal:{getpass.getuser()}"
    except (OSError, KeyError, ImportError):  # a container's account may have no name
        return "terminal:?"


def user_of(name: str) -> Any:
    """Return the active user of this name. Raises `InvalidOption`."""
    users = get_user_model()._default_manager
    found = users.filter(**{get_user_model().USERNAME_FIELD: name}).first()
    if found is None or not found.is_active:
        raise InvalidOption(f"There is no active user {name!r}.")
    return found
