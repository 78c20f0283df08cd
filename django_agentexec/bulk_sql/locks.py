"""Limits on the time that a statement waits for the locks of other transactions.

By default PostgreSQL waits without a limit: any transaction that stays open on one row would block all writers of
that row, together with everything that they write in the same transaction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper


@dataclass(frozen=True)
class LockWait:
    """How a SELECT ... FOR UPDATE treats locks of other transactions."""

    seconds: float = 0.0
    """The longest wait for a lock, after which the statement fails; 0 is without a limit."""
    skips_locked: bool = False
    """Omit locked rows instead of waiting, where the database can; `seconds` then limits the wait for table locks."""


UNLIMITED = LockWait()


def lock_clause(connection: BaseDatabaseWrapper, wait: LockWait) -> str:
    """Return the FOR UPDATE clause of a SELECT in this database's form, or "" if the database has none."""
    features = connection.features
    if not features.has_select_for_update:
        return ""
    skips = wait.skips_locked and features.has_select_for_update_skip_locked
    clause: str = connection.ops.for_update_sql(skip_locked=skips, no_key=features.has_select_for_no_key_update)
    if wait.seconds and not skips and getattr(connection, "mysql_is_mariadb", False):
        clause += f" WAIT {math.ceil(wait.seconds)}"
    return clause


def can_skip_locked(using: str) -> bool:
    """Whether the database locks rows and can omit locked rows from a SELECT."""
    return bool(connections[using].features.has_select_for_update_skip_locked)
