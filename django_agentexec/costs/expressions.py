"""SQL expressions of usage."""

from __future__ import annotations

from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import F, Func, TextField
from django.db.models.sql.compiler import SQLCompiler


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
