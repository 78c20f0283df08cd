"""Parts of `generic` and `postgres`: the writes, their columns, and locks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias, TypeVar

from django.db import connections, models
from django.db.models import Field

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


@cache
def updated_fields(model: Model, names: tuple[str, ...]) -> list[AnyField]:
    """Return the fields of these names, followed by the primary key."""
    return [field for name in names for field in model._meta.concrete_fields if field.name == name] + [model._meta.pk]


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


@cache
def lock_clause(using: str, wait: LockWait) -> str:
    """Return the FOR UPDATE clause of a SELECT in this database's form, or "" if the database has none."""
    connection = connections[using]
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
