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

from .columns import AnyField, Insert, Model, Update, columns_at_birth, columns_to_change

MOST_ROWS = 5_000  # of one statement
LARGEST = 16 << 20  # characters of one statement's documents; PostgreSQL takes a gigabyte, a worker has less to spare
Names = list[tuple[str, str]]  # of a column in the document, and of its attribute


def write(writes: Sequence[Insert | Update], using: str) -> None:
    """Do all writes by one statement; sets the keys that the database makes, which only the last one may ask for."""
    parts, documents = [], []
    for one in writes:
        sql, names = _statement(one, using)
        parts.append(sql)
        documents.append(_document(one.rows, names))
    if sum(map(len, documents)) > LARGEST and any(len(one.rows) > 1 for one in writes):
        _write_by_halves(writes, using)
        return
    *first, last = parts
    head = ", ".join(f"write{number} AS ({sql})" for number, sql in enumerate(first))
    with connections[using].cursor() as cursor:
        cursor.execute(f"WITH {head} {last}" if head else last, documents)
        if isinstance(one, Insert) and one.makes_keys:
            # The sequence is asked in the order of the document.
            for row, key in zip(one.rows, sorted(key for (key,) in cursor.fetchall()), strict=True):
                row.pk = key


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
    quote, meta, fields = connections[using].ops.quote_name, model._meta, columns_at_birth(model)
    columns = ", ".join(quote(str(field.column)) for field in fields)
    values = ", ".join(f"c{place}" for place in range(len(fields)))
    returning = "" if meta.pk in fields else f" RETURNING {quote(str(meta.pk.column))}"
    sql = f"INSERT INTO {quote(meta.db_table)} ({columns}) SELECT {values} FROM {_table(fields, using)}{returning}"
    return sql, _names(fields)


@cache
def _update_statement(model: Model, names: tuple[str, ...], using: str) -> tuple[str, Names]:
    quote, meta, fields = connections[using].ops.quote_name, model._meta, columns_to_change(model, names)
    *changes, key = [f"{quote(str(field.column))} = c{place}" for place, field in enumerate(fields)]
    sql = f"UPDATE {quote(meta.db_table)} SET {', '.join(changes)} FROM {_table(fields, using)} WHERE {key}"
    return sql, _names(fields)


def _names(fields: Sequence[AnyField]) -> Names:
    return [(f"c{place}", field.attname) for place, field in enumerate(fields)]


def _table(fields: Sequence[AnyField], using: str) -> str:
    columns = ", ".join(f"c{place} {field.db_type(connections[using])}" for place, field in enumerate(fields))
    return f"json_to_recordset(%s::json) AS changed({columns})"
