"""Parts of `generic` and `postgres`: the writes, their columns, locks, and rows built without `__init__`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias, TypeVar

from django.db import connections, models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Field
from django.db.models.base import ModelState

AnyField: TypeAlias = "Field[Any, Any]"
Model: TypeAlias = type[models.Model]
Converter: TypeAlias = Callable[[Any], Any]
Row = TypeVar("Row", bound=models.Model)


@dataclass(frozen=True, slots=True)
class Insert:
    """New rows of a model."""

    model: Model
    rows: Sequence[models.Model]

    @property
    def returns_keys(self) -> bool:
        """Whether the database generates the primary keys."""
        return isinstance(self.model._meta.pk, models.AutoField)


@dataclass(frozen=True, slots=True)
class Update:
    """New values of the fields `names`, of rows identified by their primary keys."""

    model: Model
    rows: Sequence[models.Model]
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Select:
    """The beginning of a SELECT by primary key, and how its result becomes attributes."""

    sql: str
    """Everything up to the condition on the key."""
    key: str
    """The quoted column of the primary key."""
    attributes: list[str]
    converters: list[tuple[str, Converter]]
    """The attributes whose values the ORM converts, each with its conversion."""

    def attribute_values(self, columns: Sequence[Any]) -> dict[str, Any]:
        """Return the attributes of one row of the result."""
        values = dict(zip(self.attributes, columns, strict=True))
        for attribute, convert in self.converters:
            values[attribute] = convert(values[attribute])
        return values


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


@cache
def insert_fields(model: Model) -> list[AnyField]:
    """Return the fields that an INSERT writes: all except those that the database generates or fills by default."""
    database_defaults: frozenset[str] = getattr(model, "DB_DEFAULT_FIELDS", frozenset())
    fields = [field for field in model._meta.concrete_fields if field.name not in database_defaults]
    return [field for field in fields if not isinstance(field, models.AutoField)]


@cache
def insert_into(model: Model, using: str) -> tuple[str, str]:
    """Return the beginning of an INSERT, up to its columns, and its end, which returns generated keys."""
    quote, meta, fields = connections[using].ops.quote_name, model._meta, insert_fields(model)
    columns = ", ".join(quote(str(field.column)) for field in fields)
    returning = "" if meta.pk in fields else f" RETURNING {quote(str(meta.pk.column))}"
    return f"INSERT INTO {quote(meta.db_table)} ({columns})", returning


def set_keys(rows: Sequence[models.Model], returned: Sequence[tuple[Any]]) -> None:
    """Set the primary keys that the INSERT of `rows` has returned.

    The database generates keys in the order of the rows, but SQLite does not guarantee to return them in that order.
    """
    for row, key in zip(rows, sorted(key for (key,) in returned), strict=True):
        row.pk = key


@cache
def updated_fields(model: Model, names: tuple[str, ...]) -> list[AnyField]:
    """Return the fields of these names, followed by the primary key."""
    return [field for name in names for field in model._meta.concrete_fields if field.name == name] + [model._meta.pk]


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


@dataclass(frozen=True)
class LockWait:
    """How a SELECT ... FOR UPDATE treats locks of other transactions.

    By default PostgreSQL waits without a limit: any transaction that stays open on one row would block all writers of
    that row, together with everything that they write in the same transaction.
    """

    seconds: float = 0.0
    """The longest wait for a lock, after which the statement fails; 0 is without a limit."""
    skips_locked: bool = False
    """Omit locked rows instead of waiting, where the database can; `seconds` then limits the wait for table locks."""


UNLIMITED = LockWait()


def lock_clause(connection: BaseDatabaseWrapper, wait: LockWait) -> str:
    """Return the FOR UPDATE clause of a SELECT in this database's form, or "" if the database has none."""
    features = connection.features
    if not features.has_select_for_update:
        return ""
    skips = wait.skips_locked and features.has_select_for_update_skip_locked
    clause: str = connection.ops.for_update_sql(skip_locked=skips, no_key=features.has_select_for_no_key_update)
    if wait.seconds and not skips and getattr(connection, "mysql_is_mariadb", False):
        clause += f" WAIT {math.ceil(wait.seconds)}"
    return clause


def can_skip_locked(using: str) -> bool:
    """Return whether the database locks rows and can omit locked rows from a SELECT."""
    return bool(connections[using].features.has_select_for_update_skip_locked)
