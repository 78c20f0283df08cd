"""SQL statements for many rows at once, for the hot paths.

The ORM's `bulk_create` and `bulk_update`, and the `__init__` of a model, do the same at five to ten times the
processor time, which is what limits a worker. Only names and values of the package's own models pass through here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import connections

from . import generic, postgres
from .fields import Insert, Row, Update, build_row, clone_row, select_by_key
from .locks import UNLIMITED, LockWait, can_skip_locked

__all__ = [
    "Insert",
    "LockWait",
    "Update",
    "build_row",
    "can_skip_locked",
    "clone_row",
    "limit_lock_wait",
    "lock_rows",
    "needs_no_transaction",
    "write",
]


def write(writes: Sequence[Insert | Update], using: str) -> None:
    """Insert and update rows, and set the keys that the database generates. Only the last write may generate keys."""
    (postgres if needs_no_transaction(using) else generic).write(writes, using)


def needs_no_transaction(using: str) -> bool:
    """Whether `write` is atomic by itself, usually in one round trip."""
    return _is_postgres(using)


def lock_rows(
    model: type[Row], keys: Sequence[Any], names: Sequence[str], using: str, *, wait: LockWait = UNLIMITED
) -> list[Row]:
    """Return the rows with these primary keys, locked until the end of the transaction; other fields are deferred.

    Rows are locked in the order of their keys, so that two writers cannot deadlock. Where the database supports it,
    the keys themselves stay unlocked: a transaction that has inserted a reference to the row, such as the
    transaction of a handler, does not have to commit first.

    `wait` limits the wait for locks of other transactions. Rows that it skips are missing in the result.
    """
    select = select_by_key(model, tuple(names), using)
    if _is_postgres(using):
        rows = postgres.fetch_locked(select, keys, using, wait)
    else:
        rows = generic.fetch_locked(model, select, keys, using, wait)
    return [build_row(model, select.attribute_values(row), using) for row in rows]


def limit_lock_wait(using: str, seconds: float) -> None:
    """Limit the wait for locks of all statements of the caller's own transaction; PostgreSQL only."""
    if _is_postgres(using):
        postgres.limit_lock_wait(using, seconds)


def _is_postgres(using: str) -> bool:
    return connections[using].vendor == "postgresql"
