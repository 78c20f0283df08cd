"""Transactions of others that hold locks: what a forgotten shell, a long report or a migration does to the rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from django.db import connections


@contextmanager
def foreign_transaction(*statements: tuple[str, list[object]]) -> Iterator[None]:
    """Execute statements in a transaction of another connection, which is rolled back at the end of the block."""
    other = connections["default"].copy()
    other.ensure_connection()
    other.set_autocommit(False)
    try:
        with other.cursor() as cursor:
            for sql, parameters in statements:
                cursor.execute(sql, parameters)
        yield
    finally:
        other.rollback()
        other.close()


@contextmanager
def locked_rows(*agent_ids: UUID) -> Iterator[None]:
    """Hold the locks of these activities' rows, on PostgreSQL."""
    with foreign_transaction(
        ("SELECT 1 FROM agentexec_activity WHERE agent_id = ANY(%s) FOR UPDATE", [list(agent_ids)])
    ):
        yield


@contextmanager
def locked_table() -> Iterator[None]:
    """Hold the table, as a migration does, on PostgreSQL."""
    with foreign_transaction(("LOCK TABLE agentexec_activity IN ACCESS EXCLUSIVE MODE", [])):
        yield
