"""Limits on the time that a statement waits for the locks of other transactions.

By default PostgreSQL waits without a limit, and a transaction of anybody that stays open on one row would stop whoever
wants that row, together with everything that is written in the same transaction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper


@dataclass(frozen=True)
class Waits:
    """How a SELECT ... FOR UPDATE deals with locks of other transactions."""

    seconds: float = 0.0
    """For a lock, at most; 0 is without a limit. Afterwards the statement fails."""
    skips_locked: bool = False
    """Leave out locked rows instead of waiting for them, where the database can; `seconds` is for locks of tables."""


AS_LONG_AS_IT_TAKES = Waits()

_LIMIT = "SET LOCAL lock_timeout = {}"
# In the caller's transaction the limit must not outlive the statement. `agentexec.lock_timeout` is a placeholder
# parameter, which every user may set; an error rolls the settings back together with the savepoint.
_REMEMBER_AND_LIMIT = (
    "SELECT set_config('agentexec.lock_timeout', current_setting('lock_timeout'), true), "
    "set_config('lock_timeout', '{}', true)"
)
_RESTORE = "SELECT set_config('lock_timeout', current_setting('agentexec.lock_timeout'), true)"


def lock_clause(connection: BaseDatabaseWrapper, waits: Waits) -> str:
    """Return the FOR UPDATE of a SELECT in this database's form, or "" where it has none."""
    features = connection.features
    if not features.has_select_for_update:
        return ""
    skips = waits.skips_locked and features.has_select_for_update_skip_locked
    clause: str = connection.ops.for_update_sql(skip_locked=skips, no_key=features.has_select_for_no_key_update)
    if waits.seconds and not skips and getattr(connection, "mysql_is_mariadb", False):
        clause += f" WAIT {math.ceil(waits.seconds)}"
    return clause


def can_skip_locked(using: str) -> bool:
    """Whether the database locks rows, and can leave out locked ones."""
    return bool(connections[using].features.has_select_for_update_skip_locked)


def fetch_within(
    connection: BaseDatabaseWrapper, cursor: CursorWrapper, sql: str, parameters: list[Any], waits: Waits
) -> list[tuple[Any, ...]]:
    """Execute a SELECT on PostgreSQL with its waits limited, and return its rows; usually in one round trip.

    With `skips_locked` the limit is meant for the rest of a transaction that is the package's own; inside of another
    one, and otherwise, it ends with the statement.
    """
    if not waits.seconds:
        cursor.execute(sql, parameters)
        return list(cursor.fetchall())
    milliseconds = max(1, round(waits.seconds * 1000))
    is_for_all = waits.skips_locked and not connection.savepoint_ids
    before = (_LIMIT if is_for_all else _REMEMBER_AND_LIMIT).format(milliseconds)
    after = "" if is_for_all else _RESTORE
    if _takes_several_statements(connection):
        cursor.execute("; ".join(filter(None, [before, sql, after])), parameters)
        cursor.nextset()
        return list(cursor.fetchall())
    cursor.execute(before)
    cursor.execute(sql, parameters)
    rows = list(cursor.fetchall())
    if after:
        cursor.execute(after)
    return rows


def _takes_several_statements(connection: BaseDatabaseWrapper) -> bool:
    """Whether the driver sends several statements at once, and returns the result of each: psycopg 3 by default."""
    from django.db.backends.postgresql.psycopg_any import is_psycopg3

    return bool(is_psycopg3) and not getattr(connection.features, "uses_server_side_binding", False)


def limit_waits(using: str, seconds: float) -> None:
    """Let all statements of the transaction wait for locks no longer than this; on PostgreSQL.

    For a transaction of the caller's own: in an inner block it does nothing, since the limit would outlive the block.
    """
    connection = connections[using]
    if connection.vendor == "postgresql" and connection.in_atomic_block and not connection.savepoint_ids:
        with connection.cursor() as cursor:
            cursor.execute(_LIMIT.format(max(1, round(seconds * 1000))))
