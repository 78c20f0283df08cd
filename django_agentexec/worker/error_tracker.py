"""Isolation of the error tracker's state: tags, user and breadcrumbs of one attempt must not reach another's events."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def isolated_error_tracker() -> Iterator[None]:
    """Give the code inside the block a separate scope in sentry_sdk, if the project has loaded it.

    Sentry keeps the scope in a context variable, so tasks and threads that the handler starts share it, and all
    attempts of a worker would share that of the worker's main task.
    """
    isolation_scope = getattr(sys.modules.get("sentry_sdk"), "isolation_scope", None)
    if isolation_scope is None:
        yield
        return
    with isolation_scope() as scope:
        scope.clear_breadcrumbs()  # breadcrumbs of the worker name other activities
        yield
