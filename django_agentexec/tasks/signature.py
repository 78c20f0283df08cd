"""Reads a handler's annotations: its context type, its result type, and whether it wants its attempt."""

from __future__ import annotations

import inspect
import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_type_hints
from uuid import UUID

from pydantic import BaseModel, TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError

from ..exceptions import TaskDefinitionError

_FORM = "(agent_id: UUID, context: YourModel) or (agent_id: UUID, context: YourModel, attempt: Attempt)"


@dataclass(frozen=True)
class Signature:
    """What the annotations of a handler say."""

    context_type: type[BaseModel]
    result: TypeAdapter[Any]
    is_async: bool
    wants_attempt: bool


def read_signature(name: str, handler: Callable[..., Any]) -> Signature:
    """Return the signature of task `name`; raise `TaskDefinitionError` if it is not of the right form."""
    hints = _hints(name, handler)
    parameters = list(inspect.signature(handler).parameters.values())
    required = [p for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(positional) not in (2, 3) or len(required) > len(positional):
        raise TaskDefinitionError(f"Task {name!r}: {_place(handler)} must have the parameters {_FORM}.")
    if hints.get(positional[0].name, UUID) is not UUID:
        raise TaskDefinitionError(
            f"Task {name!r}: the first parameter of {_place(handler)} is the activity's id, a UUID, "
            f"but is annotated as {hints[positional[0].name]!r}."
        )
    return Signature(
        context_type=_context_type(name, handler, positional[1].name, hints),
        result=_result(name, handler, hints),
        is_async=inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(type(handler).__call__),
        wants_attempt=len(positional) == 3,
    )


def check_lock_key(name: str, template: str, context_type: type[BaseModel]) -> None:
    """Raise `TaskDefinitionError` if the template names what the context does not have."""
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise TaskDefinitionError(f"Task {name!r}: lock_key {template!r} is no template: {error}.") from error
    known = {*context_type.model_fields, *context_type.model_computed_fields}
    for field in fields:
        root = field.split(".")[0].split("[")[0]
        if root not in known:
            raise TaskDefinitionError(
                f"Task {name!r}: lock_key {template!r} uses {root or '{}'!r}, but {context_type.__name__} "
                f"has only: {', '.join(sorted(known)) or 'no fields'}."
            )


def _hints(name: str, handler: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(handler, include_extras=True)
    except NameError as error:
        raise TaskDefinitionError(
            f"Task {name!r}: an annotation of {_place(handler)} cannot be resolved: {error}. "
            "Import the type at the top of the module, outside of TYPE_CHECKING."
        ) from error


def _context_type(name: str, handler: Callable[..., Any], parameter: str, hints: dict[str, Any]) -> type[BaseModel]:
    if parameter not in hints:
        raise TaskDefinitionError(
            f"Task {name!r}: parameter {parameter!r} of {_place(handler)} has no annotation; "
            "annotate it with the Pydantic model of the task's input."
        )
    annotated = hints[parameter]
    if not (isinstance(annotated, type) and issubclass(annotated, BaseModel)):
        raise TaskDefinitionError(
            f"Task {name!r}: parameter {parameter!r} of {_place(handler)} is annotated as {annotated!r}, "
            "but a context is a Pydantic model (a subclass of pydantic.BaseModel)."
        )
    return annotated


def _result(name: str, handler: Callable[..., Any], hints: dict[str, Any]) -> TypeAdapter[Any]:
    """A handler without a return annotation may return anything that is JSON."""
    try:
        return TypeAdapter(hints.get("return", Any))
    except PydanticSchemaGenerationError as error:
        raise TaskDefinitionError(
            f"Task {name!r}: {_place(handler)} returns {hints['return']!r}, which Pydantic cannot store as JSON."
        ) from error


def _place(handler: Callable[..., Any]) -> str:
    return f"{handler.__module__}.{getattr(handler, '__qualname__', repr(handler))}"
