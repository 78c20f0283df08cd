"""What the statements write: which rows, which columns, in which order; shared by the ways of writing them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

from django.db import models
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
def columns_at_birth(model: Model) -> list[AnyField]:
    """Return the columns of a new row: all but those that the database makes or fills by itself."""
    left_out: frozenset[str] = getattr(model, "NOT_AT_BIRTH", frozenset())
    fields = [field for field in model._meta.concrete_fields if field.name not in left_out]
    return [field for field in fields if not isinstance(field, models.AutoField)]


@cache
def columns_to_change(model: Model, names: tuple[str, ...]) -> list[AnyField]:
    """Return the columns of these names, and the primary key as the last one."""
    return [field for name in names for field in model._meta.concrete_fields if field.name == name] + [model._meta.pk]
