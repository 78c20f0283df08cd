"""Contexts that people and other systems write: a field that the model does not have is an error, not ignored.

A misspelled field would otherwise be dropped, and the task would run with the default in its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, RootModel, ValidationError
from pydantic_core import InitErrorDetails

if TYPE_CHECKING:
    from .definition import TaskDefinition

_UNKNOWN = "extra_forbidden"
_VALUES = ("default", "const", "enum", "examples")  # keywords of a JSON schema that hold values, not schemas
Location = tuple[int | str, ...]


def read_context(definition: TaskDefinition[..., Any], text: str | bytes, *, strict: bool = False) -> BaseModel:
    """Return the context of a task from JSON. Raises pydantic's `ValidationError`, also for unknown fields.

    A model with `extra="allow"` takes any field. With `strict`, "5" is no number, and only aliases name fields, as the
    published schema says; without it names do, too.
    """
    by_name = None if strict else True
    model = definition.context_type
    context = model.model_validate_json(text, strict=strict or None, by_alias=True, by_name=by_name)
    try:
        # The first validation says what the context is; this one is for its complaints about unknown fields only.
        model.model_validate_json(text, strict=strict or None, by_alias=True, by_name=by_name, extra="forbid")
    except ValidationError as error:
        unknown = [one for one in error.errors(include_url=False) if one["type"] == _UNKNOWN]
        refused = [one for one in unknown if not _is_allowed(context, one["loc"])]
        if refused:
            details = [InitErrorDetails(type=_UNKNOWN, loc=one["loc"], input=one["input"]) for one in refused]
            raise ValidationError.from_exception_data(error.title, details, "json") from None
    return context


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
    """Whether the model that an unknown field was found in takes any field."""
    holder = _holder(context, location[:-1])
    return isinstance(holder, BaseModel) and holder.model_config.get("extra") == "allow"


def _holder(value: Any, location: Location) -> Any:
    """Return what stands at a location; parts that name a member of a union, not a place, are passed over."""
    for part in location:
        while isinstance(value, RootModel):
            value = value.root
        if isinstance(value, BaseModel):
            name = _field_name(type(value), part)
            value = value if name is None else getattr(value, name)
        elif isinstance(value, Mapping):
            value = value.get(part, value)
        elif isinstance(value, Sequence) and not isinstance(value, str) and isinstance(part, int) and part < len(value):
            value = value[part]
    while isinstance(value, RootModel):
        value = value.root
    return value


def _field_name(model: type[BaseModel], part: int | str) -> str | None:
    if part in model.model_fields:
        return str(part)
    return next(
        (name for name, field in model.model_fields.items() if part in (field.alias, field.validation_alias)), None
    )
