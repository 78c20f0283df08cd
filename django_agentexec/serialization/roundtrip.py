"""Stored forms: the JSON of a value from which the same value can be loaded again.

Contexts, results and results of steps are loaded once before they are stored, and compared with what they were made
of. Pydantic's usual JSON is preferred. Where it does not load as the same value, two other forms are tried:
without computed fields, which a model with `extra="forbid"` refuses, and without the models' own serializers,
which may write what their validators do not read.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_json

from ..validation import jsonable, storable_json
from .comparison import Comparison, Difference
from .unknown_fields import unknown_fields

Dump = Callable[[Any, bool], str]
Load = Callable[[str], Any]
MAX_PROBLEMS = 5  # in the text of an error


class NotStorable(ValueError):
    """No form of the value loads as the same value; `difference` says where, if one of them loads at all."""

    def __init__(self, reason: object, difference: Difference | None = None) -> None:
        super().__init__(str(reason))
        self.difference = difference


@dataclass(frozen=True, slots=True)
class Store:
    """How values of one type are written (a second argument leaves computed fields out), read and compared."""

    dump: Dump
    load: Load
    comparison: Comparison
    prefers_inputs: bool = False
    """Whether to leave computed fields out from the start, where nobody but the loader reads the form."""
    plain_form: Literal["never", "unreadable", "changed"] = "never"
    """When to bypass the models' own serializers: if their output cannot be loaded or has other fields, or also if it
    loads as another value. A serializer may hide a part of the value, which must not be stored where people see it.
    """

    def form_of(self, value: Any) -> str:
        """Return the value's stored form, as JSON. Raises `NotStorable`."""
        refusals: list[NotStorable] = []
        for inputs_only in (True,) if self.prefers_inputs else (False, True):
            try:
                return self._checked(value, self.dump, inputs_only)
            except NotStorable as error:
                refusals.append(error)
        changed = next((error for error in refusals if error.difference), None)
        has_another_form = changed is None or (changed.difference and changed.difference.cause == "serializer")
        if self.plain_form == "changed" or (self.plain_form == "unreadable" and has_another_form):
            with suppress(NotStorable):
                return self._checked(value, dump_plainly)
        raise changed or NotStorable(f"{refusals[0]}{'' if 'JSON' in str(refusals[0]) else _hint(value)}")

    def _checked(self, value: Any, dump: Callable[..., str], *options: bool) -> str:
        try:
            text = dump(value, *options)
            if "Infinity" in text or "NaN" in text:
                json.loads(text, parse_constant=_refuse_constant)
            difference = self._difference(value, self.load(text), text)
        except RecursionError as error:
            raise NotStorable("it is nested too deeply") from error
        except Exception as error:  # a model's own serializers and validators may raise anything
            raise NotStorable(described(error)) from error
        if difference:
            raise NotStorable(difference, difference)
        return text

    def _difference(self, value: Any, loaded: Any, text: str) -> Difference | None:
        if "serializer" not in self.comparison.accepted:
            return self.comparison.first_difference(value, loaded)
        others = [cause for cause in self.comparison.accepted if cause != "serializer"]
        difference = dataclasses.replace(self.comparison, accepted=others).first_difference(value, loaded)
        if difference is None or difference.cause != "serializer":
            return difference
        # One that writes other fields has changed the form. Otherwise it has changed a value, on purpose.
        if any(unknown_fields(loaded, json.loads(text))):
            return difference
        return self.comparison.first_difference(value, loaded)


def model_form(model: type[BaseModel]) -> tuple[Dump, Load]:
    """Return the functions that dump and load instances of a model, whose text is not changed."""

    def dump(value: BaseModel, inputs_only: bool) -> str:
        return value.model_dump_json(by_alias=False, round_trip=inputs_only)

    def load(text: str) -> BaseModel:
        # As JSON, since a strict model takes ids and dates as text from there only; by name, as it was dumped.
        return model.model_validate_json(text, by_alias=True, by_name=True)

    return dump, load


def dump_with(adapter: TypeAdapter[Any]) -> Dump:
    """Return the function that dumps values of a type; text that no database holds is replaced."""

    def dump(value: Any, inputs_only: bool) -> str:
        try:
            return storable_json(adapter.dump_json(value, by_alias=False, round_trip=inputs_only).decode())
        except PydanticSerializationError:
            # Half a surrogate pair, as a model may send it, cannot be encoded; anything else fails here, too.
            return to_json(jsonable(adapter, value, by_alias=False, round_trip=inputs_only)).decode()

    return dump


def dump_plainly(value: Any) -> str:
    """Return a value as JSON without its models' own serializers: each field as its type is usually written."""
    return storable_json(to_json(_plain(value), by_alias=False).decode())


def _plain(value: Any) -> Any:
    """Return a value with its models and dataclasses as dictionaries of their fields, excluded ones left out."""
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        values = {name: item for name, item in value.__dict__.items() if name in fields and not fields[name].exclude}
        if "root" in fields and set(fields) == {"root"}:
            return _plain(values["root"])
        return {name: _plain(item) for name, item in (values | (value.__pydantic_extra__ or {})).items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value) if field.init}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Set) or (isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray))):
        return [_plain(item) for item in value]
    return value


def in_one_order(value: Any, content: Any) -> Any:
    """Return the stored form of a value with its sets sorted, so that it is the same in every process."""
    if isinstance(value, Set) and isinstance(content, list):
        return sorted(content, key=lambda item: json.dumps(item, sort_keys=True))
    if isinstance(content, dict):
        items = value if isinstance(value, Mapping) else getattr(value, "__dict__", {})
        by_name = {str(name): item for name, item in items.items()}
        return {name: in_one_order(by_name.get(name), item) for name, item in content.items()}
    if isinstance(content, list) and isinstance(value, Sequence) and len(value) == len(content):
        return [in_one_order(item, form) for item, form in zip(value, content, strict=True)]
    return content


def described(error: Exception) -> str:
    """Return an error's text without the values that Pydantic would quote: they may be secret."""
    if isinstance(error, NotStorable):
        return str(error)
    if not isinstance(error, ValidationError):
        return f"{type(error).__name__}: {error}"
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    texts = [": ".join([*filter(None, [".".join(map(str, one["loc"]))]), one["msg"]]) for one in problems]
    return "; ".join(texts[:MAX_PROBLEMS]) + (" ..." if len(texts) > MAX_PROBLEMS else "")


def result_problem(error: Exception) -> str:
    """Return the text of an error about a result, with a remedy if no form of the result is JSON."""
    if isinstance(error, NotStorable) and error.difference is None:
        return f"{described(error).rstrip('.')}. Return a Pydantic model or JSON values."
    return described(error)


def _hint(value: Any) -> str:
    """Return what to add to an error about a value that holds NaN or infinity, which are written as null."""
    constants: list[str] = []
    with suppress(Exception):  # the value's own code may raise anything
        json.loads(to_json(_plain(value), inf_nan_mode="constants"), parse_constant=constants.append)
    return f" ({constants[0]} is not JSON)" if constants else ""


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
