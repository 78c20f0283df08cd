"""What the ways of writing rows share: which rows, which columns, in which order, and the keys of new ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

from django.db import connections, models
from django.db.models import Field

AnyField: TypeAlias = "Field[Any, Any]"
Model: TypeAlias = type[models.Model]


@dataclass(frozen=True, slots=True)
class Insert:
    """New rows of a model."""

    model: Model
    rows: Sequence[models.Model]

    @property
    def makes_keys(self) -> bool:
        """Whether the database makes the primary keys."""
        return isinstance(self.model._meta.pk, models.AutoField)


@dataclass(frozen=True, slots=True)
class Update:
    """The columns `names` of rows, found by their primary keys."""

    model: Model
    rows: Sequence[models.Model]
    names: tuple[str, ...]


@cache
def insert_fields(model: Model) -> list[AnyField]:
    """Return the columns of a new row: all but those that the database makes or fills by itself."""
    left_out: frozenset[str] = getattr(model, "DB_DEFAULT_FIELDS", frozenset())
    fields = [field for field in model._meta.concrete_fields if field.name not in left_out]
    return [field for field in fields if not isinstance(field, models.AutoField)]


@cache
def insert_into(model: Model, using: str) -> tuple[str, str]:
    """Return the beginning of an insert, up to its columns, and its end, which asks for made keys."""
    quote, meta, fields = connections[using].ops.quote_name, model._meta, insert_fields(model)
    columns = ", ".join(quote(str(field.column)) for field in fields)
    returning = "" if meta.pk in fields else f" RETURNING {quote(str(meta.pk.column))}"
    return f"INSERT INTO {quote(meta.db_table)} ({columns})", returning


def set_keys(rows: Sequence[models.Model], build_row: Sequence[tuple[Any]]) -> None:
    """Give new rows the keys that the insert has returned.

    Keys are made in the order of the rows, but SQLite does not promise to return them in it.
    """
    for row, key in zip(rows, sorted(key for (key,) in build_row), strict=True):
        row.pk = key


@cache
def changed_fields(model: Model, names: tuple[str, ...]) -> list[AnyField]:
    """Return the columns of these names, and the primary key as the last one."""
    return [field for name in names for field in model._meta.concrete_fields if field.name == name] + [model._meta.pk]
