"""A guard for sync functions that have an async version."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from django.utils.asyncio import async_unsafe

F = TypeVar("F", bound=Callable[..., Any])


def blocking(function: F) -> F:
    """Reject calls of `function` in an event loop, with an error that names its async version.

    Without this guard, the first query raises Django's error, which recommends a thread.
    """
    name = function.__name__
    message = f"{name}() would block the event loop; await a{name}() instead."
    guarded: F = async_unsafe(message)(function)
    return guarded
