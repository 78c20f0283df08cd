"""SQL expressions of `ActivityQuerySet` where the ORM's lookups have another meaning or are slower."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import BooleanField, F, Func, Q, SmallIntegerField, TextField
from django.db.models.sql.compiler import SQLCompiler

from .validation import is_storable

Scalar = str | int | float | None

_WORDS: dict[str, Scalar] = {"true": True, "false": False, "null": None}
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?P<fraction>\.\d+)?(?P<exponent>[eE][+-]?\d+)?", re.ASCII)
_MAX_NUMBER_LENGTH = 40  # characters; longer numbers exceed those of any database
_INTEGER_LIMIT = 2**63  # databases compare integers below this limit


class JSONHasKeyValue(Func):
    """Whether the object in `field` has `value` (as JSON: true is not 1, but 1 is 1.0) under its top-level `key`.

    For databases without containment (SQLite). The key is taken literally; Django's lookups interpret `a__b`, `0` and
    `isnull`.
    """

    output_field = BooleanField()

    def __init__(self, field: str, key: str, value: Scalar) -> None:
        super().__init__(F(field))
        self._key, self._value = key, value

    def as_sql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_: Any) -> tuple[str, list[Any]]:  # type: ignore[override]  # without Func's extra parameters
        column, parameters = compiler.compile(self.get_source_expressions()[0])
        condition, values = self._condition()
        return f"EXISTS (SELECT 1 FROM JSON_EACH({column}) WHERE key = %s AND {condition})", [
            *parameters,
            self._key,
            *values,
        ]

    def _condition(self) -> tuple[str, list[Any]]:
        match self._value:
            case None:
                return "type = 'null'", []
            case bool():
                return "type = %s", ["true" if self._value else "false"]
            case str():
                return "type = 'text' AND value = %s", [str(self._value)]
        return "type IN ('integer', 'real') AND value = %s", [self._value]


class ActiveFirst(Func):
    """0 for a queued or running status, 1 for a finished one: the expression of the index `agentexec_active_first`.

    Written as literal SQL, since SQLite does not match the expression of an index with an expression with parameters.
    """

    output_field = SmallIntegerField()
    template = "CASE WHEN %(expressions)s IN ('queued', 'running') THEN 0 ELSE 1 END"


def can_be_in_json(value: Scalar) -> bool:
    """Return whether a row can hold this value; for other values a query would be an error."""
    if isinstance(value, str):
        return is_storable(value)
    return value is None or abs(value) < _INTEGER_LIMIT  # false for NaN, too


def parse_candidates(text: str) -> list[Scalar]:
    """Return the possible values of typed text or a URL parameter: the string, and its value as a JSON literal."""
    if text in _WORDS:
        return [text, _WORDS[text]]
    number = _NUMBER.fullmatch(text) if len(text) <= _MAX_NUMBER_LENGTH else None
    if number is None:
        return [text]
    return [text, float(text) if number["fraction"] or number["exponent"] else int(text)]


def text_form(value: object) -> str | None:
    """Return the canonical text of a scalar of metadata, or None for a value that equals no value.

    Values with the same text are the same: the numbers 1 and 1.0 and the string "1" are, the string "1.0" is not.
    """
    if isinstance(value, str):
        return value if is_storable(value) else None
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, (int, float)) or not can_be_in_json(value):
        return None
    return str(int(value)) if value == int(value) else json.dumps(value)


def same_values(value: object) -> list[Scalar]:
    """Return the JSON values with the same `text_form` as `value`, or an empty list."""
    text = text_form(value)
    return [] if text is None else [candidate for candidate in parse_candidates(text) if text_form(candidate) == text]


def metadata_holds(key: str, values: Iterable[Scalar], *, has_containment: bool) -> Q | None:
    """Return the condition that `metadata` has one of `values` under the top-level `key`, or None if no row can.

    The condition is flat for any number of values.
    """
    distinct = {(type(value), value): value for value in values if can_be_in_json(value)}.values()  # 1 and true are two
    if not distinct or not can_be_in_json(key):
        return None
    if has_containment:
        return Q(*(Q(metadata__contains={key: value}) for value in distinct), _connector=Q.OR)
    return Q(*(JSONHasKeyValue("metadata", key, value) for value in distinct), _connector=Q.OR)


class MetadataText(Func):
    """The value under a top-level key of metadata as text, or NULL.

    The key is taken literally; Django's key transforms interpret digits as a position.
    """

    output_field = TextField()

    def __init__(self, field: str, key: str) -> None:
        super().__init__(F(field))
        self._key = key

    def as_sql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_: Any) -> tuple[str, list[Any]]:  # type: ignore[override]  # without Func's extra parameters
        column, parameters = compiler.compile(self.get_source_expressions()[0])
        value = "CASE type WHEN 'true' THEN 'true' WHEN 'false' THEN 'false' ELSE CAST(value AS TEXT) END"
        return f"(SELECT {value} FROM JSON_EACH({column}) WHERE key = %s)", [*parameters, self._key]

    def as_postgresql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_: Any) -> tuple[str, list[Any]]:
        """Return the SQL."""
        column, parameters = compiler.compile(self.get_source_expressions()[0])
        return f"({column} ->> %s::text)", [*parameters, self._key]
