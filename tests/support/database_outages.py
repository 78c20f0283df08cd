"""Outages of the database during which it answers, as in a failover or a migration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection
from django.db.backends.signals import connection_created

_READ_ONLY = {
    "postgresql": "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "sqlite": "PRAGMA query_only = ON",
}
_WRITABLE = {
    "postgresql": "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
    "sqlite": "PRAGMA query_only = OFF",
}


@contextmanager
def read_only_database() -> Iterator[None]:
    """Refuse writes of this thread's connection, and of all that are opened inside the block, as a standby does."""

    def refuse_writes(connection: Any, **signal: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(_READ_ONLY[connection.vendor])

    refuse_writes(connection)
    connection_created.connect(refuse_writes)
    try:
        yield
    finally:
        connection_created.disconnect(refuse_writes)
        with connection.cursor() as cursor:
            cursor.execute(_WRITABLE[connection.vendor])


@contextmanager
def missing_column(name: str = "percentage") -> Iterator[None]:
    """Have a column missing, as for a process whose code is ahead of the migrations."""
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE agentexec_activity RENAME COLUMN {name} TO {name}_later")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE agentexec_activity RENAME COLUMN {name}_later TO {name}")
