"""Rows built without `__init__`, and writes and locks of many rows.

There is one prepared statement per table and set of columns; on PostgreSQL, `postgres` does it in one for all.

Databases that cannot return generated keys from an INSERT of several rows use the ORM's `bulk_create`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

from django.db import connections, models
from django.db.models.base import ModelState

from . import postgres
from .fields import (
    UNLIMITED,
    AnyField,
    Converter,
    Insert,
    LockWait,
    Model,
    Row,
    Select,
    Update,
    insert_fields,
    insert_into,
    lock_clause,
    updated_fields,
)

Adapters = list[tuple[int, Converter]]
"""Conversions to the driver's types, each with the position of its value."""

MAX_PARAMETERS = 65_000  # of one statement, for databases that do not report their limit


def build_row(model: type[Row], values: dict[str, Any], using: str | None = None) -> Row:
    """Return a model instance with these attributes, without `__init__`, `pre_init` and `post_init`.

    With `using` it is a row read from that database, as from `from_db`, and attributes without a value are deferred.
    Without `using` it is a new row, which needs all its attributes.
    """
    row = model.__new__(model)
    row.__dict__.update(values)
    row._state = ModelState()
    if using is not None:
        row._state.adding, row._state.db = False, using
    return row


def clone_row(row: Row, **values: Any) -> Row:
    """Return another new row with the attributes of `row`, replaced by `values` where given."""
    return build_row(type(row), {**row.__dict__, **values})


def write(writes: Sequence[Insert | Update], using: str) -> None:
    """Insert and update rows, and set the keys that the database generates. Only the last write may generate keys."""
    if _is_postgres(using):
        keys = postgres.write(writes, using)
        if keys:
            _set_keys(writes[-1].rows, keys)
        return
    for each in writes:
        if isinstance(each, Insert):
            _insert(each, using)
        else:
            _update(each, using)


def _set_keys(rows: Sequence[models.Model], returned: Sequence[tuple[Any, ...]]) -> None:
    """Set the primary keys that the INSERT of `rows` has returned.

    The database generates keys in the order of the rows, but SQLite does not guarantee to return them in that order.
    """
    for row, key in zip(rows, sorted(key for (key,) in returned), strict=True):
        row.pk = key


@cache
def needs_no_transaction(using: str) -> bool:
    """Return whether `write` is atomic by itself, usually in one round trip."""
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
        rows = _fetch_locked(model, select, keys, using, wait)
    return [build_row(model, _attribute_values(select, row), using) for row in rows]


def _attribute_values(select: Select, columns: Sequence[Any]) -> dict[str, Any]:
    """Return the attributes of one row of the result."""
    values = dict(zip(select.attributes, columns, strict=True))
    for attribute, convert in select.converters:
        values[attribute] = convert(values[attribute])
    return values


def limit_lock_wait(using: str, seconds: float) -> None:
    """Limit the wait for locks of all statements of the caller's own transaction; PostgreSQL only."""
    if _is_postgres(using):
        postgres.limit_lock_wait(using, seconds)


def _is_postgres(using: str) -> bool:
    return connections[using].vendor == "postgresql"


def _fetch_locked(
    model: Model, select: Select, keys: Sequence[Any], using: str, wait: LockWait
) -> list[tuple[Any, ...]]:
    """Execute a SELECT of the rows with these keys, in the order of their keys, and return its result."""
    connection = connections[using]
    adapt = _adapter(model._meta.pk, using)
    places = ", ".join(["%s"] * len(keys))
    sql = f"{select.sql} IN ({places}) ORDER BY {select.key} {lock_clause(using, wait)}"
    with connection.cursor() as cursor:
        cursor.execute(sql, [adapt(key) if adapt else key for key in keys])
        return list(cursor.fetchall())


def _insert(insert: Insert, using: str) -> None:
    features = connections[using].features
    if not features.can_return_rows_from_bulk_insert:
        insert.model._default_manager.using(using).bulk_create(insert.rows)
        return
    sql, returning = insert_into(insert.model, using)
    places, attributes, adapters = _insert_values(insert.model, using)
    batch_size = _max_parameters(using) // len(attributes)
    for start in range(0, len(insert.rows), batch_size):
        batch = insert.rows[start : start + batch_size]
        values = [value for row in batch for value in _adapted_values(row, attributes, adapters)]
        with connections[using].cursor() as cursor:
            cursor.execute(f"{sql} VALUES {', '.join([places] * len(batch))}{returning}", values)
            if returning:
                _set_keys(batch, cursor.fetchall())


def _update(update: Update, using: str) -> None:
    sql, attributes, adapters = _update_statement(update.model, update.names, using)
    with connections[using].cursor() as cursor:
        cursor.executemany(sql, [_adapted_values(row, attributes, adapters) for row in update.rows])


def _adapted_values(row: models.Model, attributes: Sequence[str], adapters: Adapters) -> list[Any]:
    """Return a row's values in the types of the driver."""
    by_attribute = row.__dict__
    values = [by_attribute[attribute] for attribute in attributes]
    for position, adapt in adapters:
        values[position] = adapt(values[position])
    return values


@cache
def _max_parameters(using: str) -> int:
    connection = connections[using]
    if connection.vendor != "sqlite":
        return MAX_PARAMETERS
    connection.ensure_connection()
    limit: int = connection.connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)
    return limit


@cache
def _insert_values(model: Model, using: str) -> tuple[str, list[str], Adapters]:
    """Return the placeholders of one row, its attributes and their adapters."""
    fields = insert_fields(model)
    return f"({', '.join(['%s'] * len(fields))})", [field.attname for field in fields], _adapters(fields, using)


@cache
def _update_statement(model: Model, names: tuple[str, ...], using: str) -> tuple[str, list[str], Adapters]:
    quote, meta = connections[using].ops.quote_name, model._meta
    fields = updated_fields(model, names)
    *columns, key = [f"{quote(str(field.column))} = %s" for field in fields]
    sql = f"UPDATE {quote(meta.db_table)} SET {', '.join(columns)} WHERE {key}"
    return sql, [field.attname for field in fields], _adapters(fields, using)


def _adapters(fields: Sequence[AnyField], using: str) -> Adapters:
    """Return the adapters of the fields that need one, each with its position."""
    return [(position, adapt) for position, field in enumerate(fields) if (adapt := _adapter(field, using))]


@cache
def _adapter(field: AnyField, using: str) -> Converter | None:
    """Return the conversion that `field.get_db_prep_save` applies to values of the field's Python type, or None."""
    connection = connections[using]
    target = getattr(field, "target_field", field)  # a foreign key stores the type of the key it refers to
    if isinstance(target, models.DateTimeField):
        # The rows of a batch share their times.
        adapt: Converter | None = lru_cache(maxsize=16)(connection.ops.adapt_datetimefield_value)
    elif isinstance(target, models.JSONField):
        encoder = target.encoder
        to_json: Converter = lambda value: None if value is None else connection.ops.adapt_json_value(value, encoder)  # noqa: E731
        empty = to_json({})
        adapt = lambda value: empty if value == {} else to_json(value)  # noqa: E731
    elif isinstance(target, models.UUIDField) and not connection.features.has_native_uuid_field:
        adapt = lambda value: None if value is None else value.hex  # noqa: E731
    elif field.choices:
        adapt = int if isinstance(target, models.IntegerField) else str  # members of an enumeration
    else:
        adapt = None
    return adapt


@cache
def select_by_key(model: Model, names: tuple[str, ...], using: str) -> Select:
    """Return the SELECT of these fields and the primary key."""
    quote, meta = connections[using].ops.quote_name, model._meta
    fields = [field for field in meta.concrete_fields if field.name in names or field.primary_key]
    columns = ", ".join(quote(str(field.column)) for field in fields)
    key = quote(str(meta.pk.column))
    return Select(
        sql=f"SELECT {columns} FROM {quote(meta.db_table)} WHERE {key}",
        key=key,
        attributes=[field.attname for field in fields],
        converters=[(field.attname, convert) for field in fields if (convert := _converter(field, using))],
    )


def _converter(field: AnyField, using: str) -> Converter | None:
    """Return the ORM's conversion of a value read from this column, or None if there is none."""
    connection = connections[using]
    column = field.get_col(field.model._meta.db_table)
    steps = [*connection.ops.get_db_converters(column), *column.get_db_converters(connection)]
    if not steps:
        return None

    def convert(value: Any) -> Any:
        for step in steps:
            value = step(value, column, connection)
        return value

    return convert
