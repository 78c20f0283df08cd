"""Many rows as one parameter, for PostgreSQL: a JSON document that the server reads as a table.

psycopg parses a statement's placeholders in Python, and plans each statement of `executemany` anew: of a bulk
enqueue that was two thirds of the time. `json_to_recordset` needs one placeholder and one plan for any number
of rows; and several writes go into one statement, hence one round trip. Called by `statements`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from django.db import connections, models, transaction
from pydantic_core import to_json

from .fields import AnyField, Insert, Model, Update, changed_fields, insert_fields, insert_into, set_keys

MAX_ROWS = 5_000  # of one statement
MAX_STATEMENT_SIZE = (
    16 << 20
)  # characters of one statement's documents; PostgreSQL takes a gigabyte, a worker has less to spare
Names = list[tuple[str, str]]  # of a column in the document, and of its attribute


def write(writes: Sequence[Insert | Update], using: str) -> None:
    """Do all writes by one statement, or in one transaction if they are large.

    Sets the keys that the database makes, which only the last write may ask for.
    """
    most_rows = max(len(one.rows) for one in writes)
    statements = [_statement(one, using) for one in writes]
    documents = []
    if most_rows <= MAX_ROWS:
        documents = [_document(one.rows, names) for one, (_, names) in zip(writes, statements, strict=True)]
    if most_rows > MAX_ROWS or (most_rows > 1 and sum(map(len, documents)) > MAX_STATEMENT_SIZE):
        _write_by_halves(writes, using)
        return
    *first, (sql, _) = statements
    head = ", ".join(f"write{number} AS ({sql})" for number, (sql, _) in enumerate(first))
    with connections[using].cursor() as cursor:
        cursor.execute(f"WITH {head} {sql}" if head else sql, documents)
        if isinstance(writes[-1], Insert) and writes[-1].makes_keys:
            set_keys(writes[-1].rows, cursor.fetchall())


def _write_by_halves(writes: Sequence[Insert | Update], using: str) -> None:
    with transaction.atomic(using=using, savepoint=False):
        for one in writes:
            middle = (len(one.rows) + 1) // 2
            for rows in (one.rows[:middle], one.rows[middle:]):
                if rows:
                    write([replace(one, rows=rows)], using)


def _statement(write: Insert | Update, using: str) -> tuple[str, Names]:
    if isinstance(write, Insert):
        return _insert_statement(write.model, using)
    return _update_statement(write.model, write.names, using)


def _document(rows: Sequence[models.Model], names: Names) -> str:
    values = [row.__dict__ for row in rows]
    return to_json([{short: known[attribute] for short, attribute in names} for known in values]).decode()


@cache
def _insert_statement(model: Model, using: str) -> tuple[str, Names]:
    fields, (head, returning) = insert_fields(model), insert_into(model, using)
    values = ", ".join(f"c{place}" for place in range(len(fields)))
    return f"{head} SELECT {values} FROM {_table(fields, using)}{returning}", _names(fields)


@cache
def _update_statement(model: Model, names: tuple[str, ...], using: str) -> tuple[str, Names]:
    quote, meta, fields = connections[using].ops.quote_name, model._meta, changed_fields(model, names)
    *changes, key = [f"{quote(str(field.column))} = c{place}" for place, field in enumerate(fields)]
    sql = f"UPDATE {quote(meta.db_table)} SET {', '.join(changes)} FROM {_table(fields, using)} WHERE {key}"
    return sql, _names(fields)


def _names(fields: Sequence[AnyField]) -> Names:
    return [(f"c{place}", field.attname) for place, field in enumerate(fields)]


def _table(fields: Sequence[AnyField], using: str) -> str:
    columns = ", ".join(f"c{place} {field.db_type(connections[using])}" for place, field in enumerate(fields))
    return f"json_to_recordset(%s::json) AS changed({columns})"
