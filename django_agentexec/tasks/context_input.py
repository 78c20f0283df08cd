"""Contexts that people and other systems write: a field that the model does not have is an error, not ignored.

A misspelled field would otherwise be dropped, and the task would run with the default in its place.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from django.utils.translation import gettext as _
from pydantic import BaseModel, RootModel, ValidationError
from pydantic_core import InitErrorDetails

if TYPE_CHECKING:
    from .definition import AnyTask

MAX_PROBLEMS = 100  # of a context that are reported; a small body may have a hundred thousand

MORE_ERRORS = "more_errors"  # the code of the problem that states that there are more
_UNKNOWN = "extra_forbidden"
_VALUES = ("default", "const", "enum", "examples")  # keywords of a JSON schema that hold values, not schemas
Location = tuple[int | str, ...]
T = TypeVar("T")


def read_context(task: AnyTask, text: str | bytes, *, strict: bool = False) -> BaseModel:
    """Return the context of a task from JSON. Raises pydantic's `ValidationError`, also for unknown fields.

    A model with `extra="allow"` takes any field. With `strict`, "5" is no number, and only aliases name fields, as the
    published schema says; without it names do, too.
    """
    by_name = None if strict else True
    model: type[BaseModel] = task.context_type
    context = model.model_validate_json(text, strict=strict or None, by_alias=True, by_name=by_name)
    try:
        # The first validation returns the context; this validation only reports unknown fields.
        model.model_validate_json(text, strict=strict or None, by_alias=True, by_name=by_name, extra="forbid")
    except ValidationError as error:
        unknown = (one for one in error.errors(include_url=False) if one["type"] == _UNKNOWN)
        refused = _first(one for one in unknown if not _is_allowed(context, one["loc"]))
        if refused:
            raise _unknown_fields(model, [(one["loc"], one["input"]) for one in refused]) from None
    if strays := _first(_strays(json.loads(text), context)):
        raise _unknown_fields(model, strays)
    return context


def _first(found: Iterator[T]) -> list[T]:
    """Return one more than is reported, so that the report says that there are more."""
    return list(islice(found, MAX_PROBLEMS + 1))


def _unknown_fields(model: type[BaseModel], found: Sequence[tuple[Location, Any]]) -> ValidationError:
    details = [InitErrorDetails(type=_UNKNOWN, loc=place, input=value) for place, value in found]
    return ValidationError.from_exception_data(model.__name__, details, "json")


def _strays(raw: Any, value: Any, place: Location = ()) -> Iterator[tuple[Location, Any]]:
    """Yield the fields in JSON that a dataclass does not have; pydantic's `extra` is not for these."""
    value, inner = _without_root(value), list[tuple[int | str, Any, Any]]()
    if isinstance(raw, dict) and is_dataclass(value) and not isinstance(value, type):
        names = {field.name for field in fields(value)}
        aliases = {field.alias for field in getattr(type(value), "__pydantic_fields__", {}).values()}
        settings: Any = getattr(type(value), "__pydantic_config__", None) or {}
        if settings.get("extra") != "allow" and not settings.get("alias_generator"):
            yield from (((*place, key), raw[key]) for key in raw.keys() - names - aliases)
        inner = [(key, raw[key], getattr(value, key)) for key in names & raw.keys()]
    elif isinstance(raw, dict) and isinstance(value, BaseModel):
        named = [(key, _field_name(type(value), key)) for key in raw]
        inner = [(key, raw[key], getattr(value, name)) for key, name in named if name is not None]
    elif isinstance(raw, dict) and isinstance(value, Mapping):
        inner = [(key, raw[key], value[key]) for key in raw if key in value]
    elif isinstance(raw, list) and isinstance(value, (list, tuple)) and len(raw) == len(value):
        inner = [(index, *both) for index, both in enumerate(zip(raw, value, strict=True))]
    else:
        return
    for key, raw_part, part in inner:
        yield from _strays(raw_part, part, (*place, key))


def closed_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a context's JSON schema as `read_context` reads it: objects have no further properties unless allowed."""
    closed: dict[str, Any] = _closed(schema)
    return closed


def _closed(value: Any) -> Any:
    match value:
        case {"type": "object", "properties": Mapping()}:
            inner = {key: _closed(one) for key, one in value.items() if key != "properties"}
            properties = {name: _closed(one) for name, one in value["properties"].items()}
            return {"additionalProperties": False, **inner, "properties": properties}
        case dict():
            return {key: one if key in _VALUES else _closed(one) for key, one in value.items()}
        case list():
            return [_closed(one) for one in value]
    return value


def _is_allowed(context: BaseModel, location: Location) -> bool:
    """Return whether the model that an unknown field was found in takes any field."""
    holder = _holder(context, location[:-1])
    return isinstance(holder, BaseModel) and holder.model_config.get("extra") == "allow"


def _holder(value: Any, location: Location) -> Any:
    """Return what stands at a location; parts that name a member of a union, not a place, are passed over."""
    for part in location:
        value = _without_root(value)
        if isinstance(value, BaseModel):
            name = _field_name(type(value), part)
            value = value if name is None else getattr(value, name)
        elif isinstance(value, Mapping):
            value = value.get(part, value)
        elif isinstance(value, Sequence) and not isinstance(value, str) and isinstance(part, int) and part < len(value):
            value = value[part]
    return _without_root(value)


def _without_root(value: Any) -> Any:
    while isinstance(value, RootModel):
        value = value.root
    return value


def _field_name(model: type[BaseModel], part: int | str) -> str | None:
    if part in model.model_fields:
        return str(part)
    return next(
        (name for name, field in model.model_fields.items() if part in (field.alias, field.validation_alias)), None
    )


@dataclass(frozen=True)
class FieldProblem:
    """An error of Pydantic in one field, or in the whole model (without a location)."""

    location: Location
    message: str
    code: str
    """Pydantic's type of the error, such as `missing`."""
    input: Any

    @property
    def path(self) -> str:
        """The location as text, such as `pages.0.number`; "" for the whole model."""
        return ".".join(map(str, self.location))

    @property
    def is_missing(self) -> bool:
        """Whether the field was not given."""
        return self.code == "missing"


def field_problems(error: ValidationError) -> list[FieldProblem]:
    """Return the problems that a `ValidationError` lists, without Pydantic's prefix of custom messages.

    Of more than `MAX_PROBLEMS`, the first are returned, and one that states that there are more.
    """
    found = error.errors(include_url=False, include_context=False)
    problems = [
        FieldProblem(problem["loc"], problem["msg"].removeprefix("Value error, "), problem["type"], problem["input"])
        for problem in found[:MAX_PROBLEMS]
    ]
    if len(found) > MAX_PROBLEMS:
        problems.append(FieldProblem((), _("There are more errors; only the first are listed."), MORE_ERRORS, None))
    return problems


def construction_of(model: type[BaseModel]) -> str:
    """Return the Python text that makes a context, with its required fields, such as `Letter(text=...)`."""
    names = [name for name, field in model.model_fields.items() if field.is_required()]
    arguments = ["..."] if issubclass(model, RootModel) else [f"{name}=..." for name in names]
    return f"{model.__name__}({', '.join(arguments)})"


def problem_lines(error: ValidationError) -> list[str]:
    """Return one line per invalid field of a context, without the rejected values, which may be secrets."""
    return [f"{problem.path or 'context'}: {problem.message}" for problem in field_problems(error)]
