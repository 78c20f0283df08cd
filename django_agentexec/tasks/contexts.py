"""Contexts on their way into a row: the JSON from which a worker makes the same context again."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

from ..conf import conf
from ..exceptions import ContextTooLarge, InvalidContext
from ..serialization.comparison import Cause, Comparison
from ..serialization.roundtrip import NotStorable, Store
from ..validation import contains_nul
from .definition import TaskDefinition

_REMEDIES: dict[Cause, str] = {
    "secret": "Pass a reference to the secret and read it in the handler; a row is no place for it.",
    "excluded": "Take the exclusion away, or leave the value out.",
    "subclass": "Annotate the task, or the field, with the class that has the field.",
    "serializer": "Let its validator read what its serializer writes.",
    "value": "Annotate the field with the type that it holds, and give it values that JSON can hold.",
}
_COMPARISON = Comparison()


def stored_context(definition: TaskDefinition[..., Any], context: BaseModel) -> dict[str, Any]:
    """Return a context as JSON values, from which a worker loads the same context.

    Raises `InvalidContext`, with the path of the first difference, if it would load another one or none, and
    `ContextTooLarge`.
    """
    if not isinstance(context, definition.context_type):
        raise InvalidContext(
            f"Task {definition.name!r} takes a {definition.context_type.__name__}, not {_described(context)}."
        )
    text = _form_of(definition, context)
    size = len(text.encode())
    if size > conf.MAX_CONTEXT_BYTES:
        raise ContextTooLarge(
            f"The context of task {definition.name!r} has {size:,} bytes of JSON; the limit "
            f"AGENTEXEC['MAX_CONTEXT_BYTES'] is {conf.MAX_CONTEXT_BYTES:,}. Store it and pass a reference."
        )
    if contains_nul(text):
        raise InvalidContext(f"The context of task {definition.name!r} holds a NUL character, which is not storable.")
    try:
        content: dict[str, Any] = json.loads(text)
    except (ValueError, RecursionError) as error:  # such as a number of 5,000 digits
        raise InvalidContext(f"The context of task {definition.name!r} cannot be stored as JSON: {error}") from error
    return content


def _form_of(definition: TaskDefinition[..., Any], context: BaseModel) -> str:
    try:
        return Store(_dump, definition.load_context, _COMPARISON).form_of(context)
    except NotStorable as error:
        if error.difference is None:
            reason = "does not survive as JSON, so no worker could read it"
            raise InvalidContext(f"The context of task {definition.name!r} {reason}: {error}") from error
        raise InvalidContext(
            f"The context of task {definition.name!r} would reach the handler with another value at {error}. "
            f"{_REMEDIES[error.difference.cause]}"
        ) from error


def _dump(context: BaseModel, inputs_only: bool) -> str:
    return context.model_dump_json(by_alias=False, round_trip=inputs_only)


def _described(context: object) -> str:
    return f"{type(context).__name__} {str(context)[:80]!r}"
