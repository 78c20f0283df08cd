"""The implementation for PostgreSQL: any number of rows as one parameter, a JSON document that the server unpacks.

psycopg parses the placeholders of a statement in Python and plans each statement of `executemany` again, which was two
thirds of the time of a bulk enqueue. `json_to_recordset` needs one placeholder and one plan for any number of rows,
and several writes go into one statement, hence one round trip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from django.db import connections, models, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper
from pydantic_core import to_json

from .fields import (
    AnyField,
    Insert,
    LockWait,
    Model,
    Select,
    Update,
    insert_fields,
    insert_into,
    lock_clause,
    updated_fields,
)

MAX_ROWS = 5_000  # of one statement
# Characters of one statement's documents. PostgreSQL accepts a gigabyte; a worker has less memory to spare.
MAX_STATEMENT_SIZE = 16 << 20

Names = list[tuple[str, str]]
"""The name of each column in the document, with its attribute."""

_LIMIT = "SET LOCAL lock_timeout = {}"
# In the caller's transaction the limit must not outlive the statement. `agentexec.lock_timeout` is a placeholder
# parameter, which every user may set; an error rolls the settings back together with the savepoint.
_SAVE_AND_LIMIT = (
    "SELECT set_config('agentexec.lock_timeout', current_setting('lock_timeout'), true), "
    "set_config('lock_timeout', '{}', true)"
)
_RESTORE = "SELECT set_config('lock_timeout', current_setting('agentexec.lock_timeout'), true)"


def write(writes: Sequence[Insert | Update], using: str) -> list[tuple[Any, ...]]:
    """Execute all writes in one statement, or in one transaction if they are large.

    Returns the primary keys that the last write has generated, if it generates keys.
    """
    max_rows = max(len(each.rows) for each in writes)
    statements = [_statement(each, using) for each in writes]
    documents = []
    if max_rows <= MAX_ROWS:
        documents = [_document(each.rows, names) for each, (_, names) in zip(writes, statements, strict=True)]
    if max_rows > MAX_ROWS or (max_rows > 1 and sum(map(len, documents)) > MAX_STATEMENT_SIZE):
        return _write_in_halves(writes, using)
    *first, (sql, _) = statements
    head = ", ".join(f"write{number} AS ({sql})" for number, (sql, _) in enumerate(first))
    with connections[using].cursor() as cursor:
        cursor.execute(f"WITH {head} {sql}" if head else sql, documents)
        if isinstance(writes[-1], Insert) and writes[-1].returns_keys:
            return list(cursor.fetchall())
    return []


def fetch_locked(select: Select, keys: Sequence[Any], using: str, wait: LockWait) -> list[tuple[Any, ...]]:
    """Execute a SELECT of the rows with these keys, in the order of their keys, and return its result."""
    connection = connections[using]
    sql = f"{select.sql} = ANY(%s) ORDER BY {select.key} {lock_clause(using, wait)}"
    with connection.cursor() as cursor:
        return _fetch_with_limit(connection, cursor, sql, [list(keys)], wait)


def limit_lock_wait(using: str, seconds: float) -> None:
    """Limit the wait for locks of all statements of the transaction.

    Has no effect in an inner block of a caller's transaction, since the limit would outlive the block.
    """
    connection = connections[using]
    if connection.in_atomic_block and not connection.savepoint_ids:
        with connection.cursor() as cursor:
            cursor.execute(_LIMIT.format(_milliseconds(seconds)))


def _fetch_with_limit(
    connection: BaseDatabaseWrapper, cursor: CursorWrapper, sql: str, parameters: list[Any], wait: LockWait
) -> list[tuple[Any, ...]]:
    """Execute a SELECT with a limit on its wait for locks, and return its rows; usually in one round trip.

    With `skips_locked` the limit stays for the rest of a transaction that belongs to the package. In a caller's
    transaction, and without `skips_locked`, it ends with the statement.
    """
    if not wait.seconds:
        cursor.execute(sql, parameters)
        return list(cursor.fetchall())
    is_for_transaction = wait.skips_locked and not connection.savepoint_ids
    before = (_LIMIT if is_for_transaction else _SAVE_AND_LIMIT).format(_milliseconds(wait.seconds))
    after = "" if is_for_transaction else _RESTORE
    if _accepts_several_statements(connection):
        cursor.execute("; ".join(filter(None, [before, sql, after])), parameters)
        cursor.nextset()
        return list(cursor.fetchall())
    cursor.execute(before)
    cursor.execute(sql, parameters)
    rows = list(cursor.fetchall())
    if after:
        cursor.execute(after)
    return rows


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _accepts_several_statements(connection: BaseDatabaseWrapper) -> bool:
    """Return whether the driver sends several statements at once and returns each result: psycopg 3 by default."""
    from django.db.backends.postgresql.psycopg_any import is_psycopg3  # exists only with a driver installed

    return bool(is_psycopg3) and not getattr(connection.features, "uses_server_side_binding", False)


def _write_in_halves(writes: Sequence[Insert | Update], using: str) -> list[tuple[Any, ...]]:
    keys: list[tuple[Any, ...]] = []  # of the last write: others generate none, or none that their rows need
    with transaction.atomic(using=using, savepoint=False):
        for each in writes:
            middle = (len(each.rows) + 1) // 2
            for rows in (each.rows[:middle], each.rows[middle:]):
                if rows:
                    generated = write([replace(each, rows=rows)], using)
                    keys += generated if each is writes[-1] else []
    return keys


def _statement(write: Insert | Update, using: str) -> tuple[str, Names]:
    if isinstance(write, Insert):
        return _insert_statement(write.model, using)
    return _update_statement(write.model, write.names, using)


def _document(rows: Sequence[models.Model], names: Names) -> str:
    values = [row.__dict__ for row in rows]
    return to_json([{short: by_attribute[attribute] for short, attribute in names} for by_attribute in values]).decode()


@cache
def _insert_statement(model: Model, using: str) -> tuple[str, Names]:
    fields, (head, returning) = insert_fields(model), insert_into(model, using)
    values = ", ".join(f"c{position}" for position in range(len(fields)))
    return f"{head} SELECT {values} FROM {_recordset(fields, using)}{returning}", _names(fields)


@cache
def _update_statement(model: Model, names: tuple[str, ...], using: str) -> tuple[str, Names]:
    quote, meta, fields = connections[using].ops.quote_name, model._meta, updated_fields(model, names)
    *changes, key = [f"{quote(str(field.column))} = c{position}" for position, field in enumerate(fields)]
    sql = f"UPDATE {quote(meta.db_table)} SET {', '.join(changes)} FROM {_recordset(fields, using)} WHERE {key}"
    return sql, _names(fields)


def _names(fields: Sequence[AnyField]) -> Names:
    return [(f"c{position}", field.attname) for position, field in enumerate(fields)]


def _recordset(fields: Sequence[AnyField], using: str) -> str:
    columns = ", ".join(f"c{position} {field.db_type(connections[using])}" for position, field in enumerate(fields))
    return f"json_to_recordset(%s::json) AS changed({columns})"
