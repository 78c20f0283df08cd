"""Reads a handler's annotations: its context type, its result type, and whether it wants its attempt."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints
from uuid import UUID

from pydantic import BaseModel, RootModel, TypeAdapter
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError

from ..exceptions import TaskDefinitionError
from .attempt import Attempt

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
    if not inspect.isroutine(handler) or inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler):
        raise TaskDefinitionError(
            f"Task {name!r}: {handler!r} must be a function that returns its result (and yields nothing)."
        )
    hints = _notices(name, handler)
    parameters = list(inspect.signature(handler).parameters.values())
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    unfilled = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    if len(positional) not in (2, 3) or unfilled or not _may_be_attempt(positional[2:], hints):
        raise TaskDefinitionError(f"Task {name!r}: {_place(handler)} must have the parameters {_FORM}.")
    if hints.get(positional[0].name, UUID) is not UUID:
        raise TaskDefinitionError(
            f"Task {name!r}: the first parameter of {_place(handler)} is the activity's id, a UUID, "
            f"but is annotated as {hints[positional[0].name]!r}."
        )
    return Signature(
        context_type=_context_type(name, handler, positional[1].name, hints),
        result=_result(name, handler, hints),
        is_async=inspect.iscoroutinefunction(handler),
        wants_attempt=len(positional) == 3,
    )


def _may_be_attempt(parameters: list[inspect.Parameter], hints: dict[str, Any]) -> bool:
    """Return whether the third parameter, if there is one, is not meant for something else."""
    return all(
        hint is Attempt or Attempt in get_args(hint)
        for hint in (hints.get(parameter.name, Attempt) for parameter in parameters)
    )


def _notices(name: str, handler: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(handler, include_extras=True)
    except Exception as error:  # an annotation is an expression, and may raise anything
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
    if (
        not (isinstance(annotated, type) and issubclass(annotated, BaseModel))
        or annotated is BaseModel
        or issubclass(annotated, RootModel)
    ):
        raise TaskDefinitionError(
            f"Task {name!r}: parameter {parameter!r} of {_place(handler)} is annotated as {annotated!r}, "
            "but a context is a Pydantic model (a subclass of pydantic.BaseModel with fields)."
        )
    return annotated


def _result(name: str, handler: Callable[..., Any], hints: dict[str, Any]) -> TypeAdapter[Any]:
    """Return the result type; a handler without a return annotation may return anything that is JSON."""
    try:
        return TypeAdapter(hints.get("return", Any))
    except (PydanticUserError, PydanticUndefinedAnnotation) as error:
        raise TaskDefinitionError(
            f"Task {name!r}: {_place(handler)} returns {hints['return']!r}, which Pydantic cannot store as JSON."
        ) from error


def _place(handler: Callable[..., Any]) -> str:
    return f"{handler.__module__}.{getattr(handler, '__qualname__', repr(handler))}"
