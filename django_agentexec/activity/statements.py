"""The few SQL statements that carry the load: many rows at once, prepared per table and column set.

The ORM's `bulk_create` and `bulk_update` do the same at five to ten times the processor time, which is what
limits a worker. Only values and names of our own models pass through here; other databases than SQLite and
PostgreSQL fall back to the ORM's insert.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any, TypeVar

from django.db import connections, models
from django.db.models import Field

Adapter = Callable[[Any], Any]
Row = TypeVar("Row", bound=models.Model)

# Parameters of one statement: PostgreSQL's protocol counts them in 16 bits; a SQLite says what it was built with.
MOST_PARAMETERS = 65_000


def lock_rows(model: type[Row], keys: Sequence[Any], names: Sequence[str], using: str) -> list[Row]:
    """Return the rows with these primary keys, locked until the end of the transaction; other columns are deferred.

    They are locked in the order of their keys, so that two writers cannot deadlock, and without the keys
    themselves where the database can: whoever has inserted a reference to the row, such as a handler in the
    middle of its own transaction, does not have to commit first.
    """
    connection = connections[using]
    sql, key, attributes, converters = _select_statement(model, tuple(names), using)
    features, lock = connection.features, ""
    if features.has_select_for_update:
        lock = connection.ops.for_update_sql(no_key=features.has_select_for_no_key_update)
    with connection.cursor() as cursor:
        places = ", ".join(["%s"] * len(keys))
        cursor.execute(f"{sql} IN ({places}) ORDER BY {key} {lock}", [_adapter(model._meta.pk, using)(k) for k in keys])
        rows = cursor.fetchall()
    return [
        model.from_db(using, attributes, [convert(v) for convert, v in zip(converters, row, strict=True)])
        for row in rows
    ]


def insert_rows(model: type[Row], rows: Sequence[Row], using: str) -> None:
    """Insert rows of `model`; sets the keys that the database makes. One statement for 1,000 rows and more."""
    if not connections[using].features.can_return_rows_from_bulk_insert:
        model._default_manager.using(using).bulk_create(rows)
        return
    names, adapters = _insert_columns(model, using)
    batch = _most_parameters(using) // len(names)
    for start in range(0, len(rows), batch):
        _insert_batch(model, rows[start : start + batch], names, adapters, using)


def update_rows(model: type[Row], rows: Sequence[Row], names: Sequence[str], using: str) -> None:
    """Write the columns `names` of each row, found by its primary key."""
    sql, attributes, adapters = _update_statement(model, tuple(names), using)
    values = [[adapt(getattr(row, name)) for name, adapt in zip(attributes, adapters, strict=True)] for row in rows]
    with connections[using].cursor() as cursor:
        cursor.executemany(sql, values)


def _insert_batch(
    model: type[Row], rows: Sequence[Row], names: Sequence[str], adapters: Sequence[Adapter], using: str
) -> None:
    quote, key = connections[using].ops.quote_name, model._meta.pk
    columns = ", ".join(quote(name) for name in names)
    one = f"({', '.join(['%s'] * len(names))})"
    attributes = [_fields(model)[name].attname for name in names]
    values = [adapt(getattr(row, name)) for row in rows for name, adapt in zip(attributes, adapters, strict=True)]
    sql = f"INSERT INTO {quote(model._meta.db_table)} ({columns}) VALUES {', '.join([one] * len(rows))}"
    with connections[using].cursor() as cursor:
        if str(key.column) in names:
            cursor.execute(sql, values)
            return
        cursor.execute(f"{sql} RETURNING {quote(str(key.column))}", values)
        # Ids are given in the order of the rows, but SQLite does not promise to return them in it.
        for row, made in zip(rows, sorted(key for (key,) in cursor.fetchall()), strict=True):
            row.pk = made


@cache
def _most_parameters(using: str) -> int:
    connection = connections[using]
    if connection.vendor != "sqlite":
        return MOST_PARAMETERS
    connection.ensure_connection()
    limit: int = connection.connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)
    return limit


@cache
def _select_statement(
    model: type[models.Model], names: tuple[str, ...], using: str
) -> tuple[str, str, list[str], list[Adapter]]:
    quote, meta = connections[using].ops.quote_name, model._meta
    fields = [field for field in meta.concrete_fields if field.name in names or field.primary_key]
    columns = ", ".join(quote(str(field.column)) for field in fields)
    key = quote(str(meta.pk.column))
    sql = f"SELECT {columns} FROM {quote(meta.db_table)} WHERE {key}"
    return sql, key, [field.attname for field in fields], [_converter(field, using) for field in fields]


@cache
def _insert_columns(model: type[models.Model], using: str) -> tuple[list[str], list[Adapter]]:
    left_out: frozenset[str] = getattr(model, "NOT_AT_BIRTH", frozenset())
    fields = {
        column: field
        for column, field in _fields(model).items()
        if not isinstance(field, models.AutoField) and field.name not in left_out
    }
    return list(fields), [_adapter(field, using) for field in fields.values()]


@cache
def _update_statement(
    model: type[models.Model], names: tuple[str, ...], using: str
) -> tuple[str, list[str], list[Adapter]]:
    quote, meta = connections[using].ops.quote_name, model._meta
    fields: list[Field[Any, Any]] = [f for name in names for f in meta.concrete_fields if f.name == name] + [meta.pk]
    *columns, key = [f"{quote(str(field.column))} = %s" for field in fields]
    sql = f"UPDATE {quote(meta.db_table)} SET {', '.join(columns)} WHERE {key}"
    return sql, [field.attname for field in fields], [_adapter(field, using) for field in fields]


@cache
def _fields(model: type[models.Model]) -> dict[str, Field[Any, Any]]:
    return {str(field.column): field for field in model._meta.concrete_fields}


def _converter(field: Field[Any, Any], using: str) -> Adapter:
    """Return what the ORM does to a value that it reads from this column."""
    connection = connections[using]
    column = field.get_col(field.model._meta.db_table)
    steps = [*connection.ops.get_db_converters(column), *column.get_db_converters(connection)]
    if not steps:
        return lambda value: value

    def convert(value: Any) -> Any:
        for step in steps:
            value = step(value, column, connection)
        return value

    return convert


@cache
def _adapter(field: Field[Any, Any], using: str) -> Adapter:
    """Return what `field.get_db_prep_save` does to a value that already has the field's Python type."""
    connection = connections[using]
    target = getattr(field, "target_field", field)  # a foreign key stores what it points at
    if isinstance(target, models.DateTimeField):
        # The rows of a batch share their times.
        adapt: Adapter = lru_cache(maxsize=16)(connection.ops.adapt_datetimefield_value)
    elif isinstance(target, models.JSONField):
        encoder = target.encoder
        adapt = lambda value: None if value is None else connection.ops.adapt_json_value(value, encoder)  # noqa: E731
    elif isinstance(target, models.UUIDField) and not connection.features.has_native_uuid_field:
        adapt = lambda value: None if value is None else value.hex  # noqa: E731
    elif field.choices:
        adapt = int if isinstance(target, models.IntegerField) else str  # members of an enumeration
    else:
        adapt = lambda value: value  # noqa: E731
    return adapt
