"""The few SQL statements that carry the load: many rows at once, prepared per table and column set.

The ORM's `bulk_create` and `bulk_update`, and a model's own `__init__`, do the same at five to ten times the
processor time, which is what limits a worker. Only values and names of our own models pass through here; other
databases than SQLite and PostgreSQL fall back to the ORM's insert.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any, TypeVar

from django.db import connections, models
from django.db.models.base import ModelState

from . import postgres
from .fields import AnyField, Insert, Update, changed_fields, insert_fields, insert_into, set_keys
from .locks import AS_LONG_AS_IT_TAKES, Waits, fetch_within, lock_clause

Adapter = Callable[[Any], Any]
Adapters = list[tuple[int, Adapter]]
Row = TypeVar("Row", bound=models.Model)

MAX_PARAMETERS = 65_000  # of one statement, in databases that do not say


def lock_rows(
    model: type[Row],
    keys: Sequence[Any],
    names: Sequence[str],
    using: str,
    *,
    waits: Waits = AS_LONG_AS_IT_TAKES,
) -> list[Row]:
    """Return the rows with these primary keys, locked until the end of the transaction; other columns are deferred.

    They are locked in the order of their keys, so that two writers cannot deadlock, and without the keys
    themselves where the database can: whoever has inserted a reference to the row, such as a handler in the
    middle of its own transaction, does not have to commit first.

    `waits` limits the time for locks of other transactions. Rows that it skips are missing in the result.
    """
    connection = connections[using]
    sql, key, attributes, converters = _select_statement(model, tuple(names), using)
    lock = lock_clause(connection, waits)
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            rows = fetch_within(connection, cursor, f"{sql} = ANY(%s) ORDER BY {key} {lock}", [list(keys)], waits)
        else:
            adapt = _adapter(model._meta.pk, using)
            places = ", ".join(["%s"] * len(keys))
            cursor.execute(f"{sql} IN ({places}) ORDER BY {key} {lock}", [adapt(k) if adapt else k for k in keys])
            rows = cursor.fetchall()
    found = []
    for row in rows:
        values = dict(zip(attributes, row, strict=True))
        for attribute, convert in converters:
            values[attribute] = convert(values[attribute])
        found.append(build_row(model, values, using))
    return found


def build_row(model: type[Row], values: dict[str, Any], using: str | None = None) -> Row:
    """Return a row of these attributes, as `from_db` does, or a new one if no database is named; others are deferred.

    A new row needs all its attributes. `pre_init` and `post_init` are not sent.
    """
    row = model.__new__(model)
    row.__dict__.update(values)
    row._state = ModelState()
    if using is not None:
        row._state.adding, row._state.db = False, using
    return row


def clone_row(row: Row, **values: Any) -> Row:
    """Return another new row with the attributes of `row`, but for these."""
    return build_row(type(row), {**row.__dict__, **values})


def write(writes: Sequence[Insert | Update], using: str) -> None:
    """Insert and update rows; sets the keys that the database makes, which only the last write may ask for."""
    if needs_no_transaction(using):
        postgres.write(writes, using)
        return
    for one in writes:
        if isinstance(one, Insert):
            _insert(one, using)
        else:
            _update(one, using)


def needs_no_transaction(using: str) -> bool:
    """Whether `write` does all or nothing by itself, usually in one round trip."""
    return connections[using].vendor == "postgresql"


def _insert(one: Insert, using: str) -> None:
    features = connections[using].features
    if not features.can_return_rows_from_bulk_insert:
        one.model._default_manager.using(using).bulk_create(one.rows)
        return
    sql, returning = insert_into(one.model, using)
    places, attributes, adapters = _insert_values(one.model, using)
    batch = _most_parameters(using) // len(attributes)
    for start in range(0, len(one.rows), batch):
        part = one.rows[start : start + batch]
        values = [value for row in part for value in _adapted(row, attributes, adapters)]
        with connections[using].cursor() as cursor:
            cursor.execute(f"{sql} VALUES {', '.join([places] * len(part))}{returning}", values)
            if one.makes_keys:
                set_keys(part, cursor.fetchall())


def _update(one: Update, using: str) -> None:
    sql, attributes, adapters = _update_statement(one.model, one.names, using)
    with connections[using].cursor() as cursor:
        cursor.executemany(sql, [_adapted(row, attributes, adapters) for row in one.rows])


def _adapted(row: models.Model, attributes: Sequence[str], adapters: Adapters) -> list[Any]:
    """Return a row's values as the driver takes them."""
    known = row.__dict__
    values = [known[attribute] for attribute in attributes]
    for place, adapt in adapters:
        values[place] = adapt(values[place])
    return values


@cache
def _most_parameters(using: str) -> int:
    connection = connections[using]
    if connection.vendor != "sqlite":
        return MAX_PARAMETERS
    connection.ensure_connection()
    limit: int = connection.connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)
    return limit


@cache
def _select_statement(
    model: type[models.Model], names: tuple[str, ...], using: str
) -> tuple[str, str, list[str], list[tuple[str, Adapter]]]:
    quote, meta = connections[using].ops.quote_name, model._meta
    fields = [field for field in meta.concrete_fields if field.name in names or field.primary_key]
    columns = ", ".join(quote(str(field.column)) for field in fields)
    key = quote(str(meta.pk.column))
    sql = f"SELECT {columns} FROM {quote(meta.db_table)} WHERE {key}"
    converters = [(field.attname, convert) for field in fields if (convert := _converter(field, using))]
    return sql, key, [field.attname for field in fields], converters


@cache
def _insert_values(model: type[models.Model], using: str) -> tuple[str, list[str], Adapters]:
    """Return the places of one row, its attributes and their adapters."""
    fields = insert_fields(model)
    return f"({', '.join(['%s'] * len(fields))})", [field.attname for field in fields], _adapters(fields, using)


@cache
def _update_statement(model: type[models.Model], names: tuple[str, ...], using: str) -> tuple[str, list[str], Adapters]:
    quote, meta = connections[using].ops.quote_name, model._meta
    fields = changed_fields(model, names)
    *columns, key = [f"{quote(str(field.column))} = %s" for field in fields]
    sql = f"UPDATE {quote(meta.db_table)} SET {', '.join(columns)} WHERE {key}"
    return sql, [field.attname for field in fields], _adapters(fields, using)


def _adapters(fields: Sequence[AnyField], using: str) -> Adapters:
    """Return the adapters of those fields that need one, each with its place."""
    return [(place, adapt) for place, field in enumerate(fields) if (adapt := _adapter(field, using))]


def _converter(field: AnyField, using: str) -> Adapter | None:
    """Return what the ORM does to a value that it reads from this column, if it does anything."""
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


@cache
def _adapter(field: AnyField, using: str) -> Adapter | None:
    """Return what `field.get_db_prep_save` does to a value of the field's Python type, if it does anything."""
    connection = connections[using]
    target = getattr(field, "target_field", field)  # a foreign key stores what it points at
    if isinstance(target, models.DateTimeField):
        # The rows of a batch share their times.
        adapt: Adapter | None = lru_cache(maxsize=16)(connection.ops.adapt_datetimefield_value)
    elif isinstance(target, models.JSONField):
        encoder = target.encoder
        to_json: Adapter = lambda value: None if value is None else connection.ops.adapt_json_value(value, encoder)  # noqa: E731
        nothing = to_json({})
        adapt = lambda value: nothing if value == {} else to_json(value)  # noqa: E731
    elif isinstance(target, models.UUIDField) and not connection.features.has_native_uuid_field:
        adapt = lambda value: None if value is None else value.hex  # noqa: E731
    elif field.choices:
        adapt = int if isinstance(target, models.IntegerField) else str  # members of an enumeration
    else:
        adapt = None
    return adapt
