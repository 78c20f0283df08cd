"""Comparison of a value with the value that its stored JSON loads as: finds one difference, with its path.

`==` does not answer that question: two NaNs are different, classes without `__eq__` never equal, a subclass is not its
base, and a model may compare by its id alone. Values are therefore compared by structure. What JSON cannot distinguish
(a list and a tuple, the order of a set, two spellings of one moment) is no difference. Private attributes, cached
properties and computed fields are not part of a value.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin
from uuid import UUID

from pydantic import BaseModel, PlainSerializer, Secret, SecretBytes, SecretStr, WrapSerializer
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from ..validation import storable_text

# Types whose `==` says all; most values are of them.
_ATOMS = frozenset({str, int, bool, float, type(None), UUID, date, Decimal, bytes})
_PLAIN_CONTAINERS = frozenset({list, dict, tuple, set, frozenset, Union, UnionType})
_MISSING = object()

Cause = Literal["value", "secret", "excluded", "subclass", "serializer"]
"""What changes a value: JSON itself, or what the value's own model declares."""
DECLARED: frozenset[Cause] = frozenset({"secret", "excluded", "subclass", "serializer"})


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two values differ, and how. It never contains the values, which may be secret."""

    path: str
    problem: str
    cause: Cause = "value"

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}" if self.path else self.problem

    def below(self, parent: str) -> Difference:
        """Return the same difference with `parent` (a field's name or an index) before its path."""
        separator = "." if self.path and not self.path.startswith("[") else ""
        return dataclasses.replace(self, path=f"{parent}{separator}{self.path}")


@dataclass(frozen=True, slots=True)
class Comparison:
    """How to compare.

    Differences by the causes in `accepted` are passed over. With `untyped_as_json`, an object in a place without a
    type (`Any`) may come back as its JSON form. With `cleaned_text`, text may come back as `storable_text` makes it.
    """

    accepted: Collection[Cause] = ()
    untyped_as_json: bool = False
    cleaned_text: bool = False

    def first_difference(self, before: Any, after: Any) -> Difference | None:
        """Return the first difference between a value and what was loaded in its place, or None."""
        kind = type(before)
        if before is after or (kind in _ATOMS and before == after):
            return None
        # Picked, then called here: nested values may take two frames of the stack per level and no more.
        difference = self._comparer(kind, after)(before, after)
        if difference is None or difference.cause in self.accepted:
            return None
        if not self.untyped_as_json or difference.cause != "value":
            return difference
        return None if self._is_json_form(before, after) else difference

    def _comparer(self, kind: type, after: Any) -> Callable[[Any, Any], Difference | None]:
        if issubclass(kind, BaseModel):
            return self._models
        if dataclasses.is_dataclass(kind) and dataclasses.is_dataclass(after) and issubclass(kind, type(after)):
            return self._dataclasses
        if issubclass(kind, Mapping) and isinstance(after, Mapping):
            return self._mappings
        if issubclass(kind, Set) and isinstance(after, Set):
            return self._sets
        if issubclass(kind, Sequence) and not issubclass(kind, (str, bytes, bytearray)) and _is_list(after):
            return self._sequences
        return self._scalars

    def _models(self, before: BaseModel, after: Any) -> Difference | None:
        kind = type(before)
        if type(after) is not kind and not issubclass(kind, _origin(type(after))):
            return _changed(before, after)
        values, loaded = before.__dict__, after.__dict__
        extra, loaded_extra = before.__pydantic_extra__, after.__pydantic_extra__
        is_plain = type(after) is kind and _is_plain(kind)  # type: ignore[arg-type]  # classes are hashable
        if is_plain and values == loaded and extra == loaded_extra:
            return None
        fields = kind.model_fields
        for name, field in fields.items():
            value, other = values.get(name, _MISSING), loaded.get(name, _MISSING)
            if value is other or value is _MISSING:
                continue
            difference = _lost(name, after) if other is _MISSING else self.first_difference(value, other)
            if difference is None:
                continue
            difference = _declared(kind, name, field, difference) if other is not _MISSING else difference
            if difference.cause not in self.accepted:
                return difference
        return self._mappings(extra or {}, loaded_extra or {}, as_fields=True) if extra or loaded_extra else None

    def _dataclasses(self, before: Any, after: Any) -> Difference | None:
        return self._named(before, after, [field.name for field in dataclasses.fields(before)])

    def _named(self, before: object, after: object, names: Iterable[str]) -> Difference | None:
        for name in names:
            value, other = getattr(before, name, _MISSING), getattr(after, name, _MISSING)
            if value is other or value is _MISSING:
                continue
            if other is _MISSING and "subclass" in self.accepted:
                continue
            if other is _MISSING:
                return _lost(name, after)
            if difference := self.first_difference(value, other):
                return difference.below(name)
        return None

    def _mappings(
        self, before: Mapping[Any, Any], after: Mapping[Any, Any], *, as_fields: bool = False
    ) -> Difference | None:
        for key, value in before.items():
            place = key if as_fields else f"[{key!r:.60}]"
            other = after.get(storable_text(key) if self.cleaned_text and isinstance(key, str) else key, _MISSING)
            if other is _MISSING and self.untyped_as_json:
                other = after.get(_json_key(key), _MISSING)
            if other is _MISSING:
                return Difference(place, "the key would be lost")
            if difference := self.first_difference(value, other):
                return difference.below(place)
        added = len(after) - len(before)
        return Difference("", f"it has {added} more keys when it is loaded") if added > 0 else None

    def _sequences(self, before: Sequence[Any], after: Sequence[Any]) -> Difference | None:
        if len(before) != len(after):
            return Difference("", f"{len(before)} items would arrive as {len(after)}")
        if _ATOMS.issuperset(map(type, before)) and list(before) == list(after):
            return None
        for number, (value, other) in enumerate(zip(before, after, strict=True)):
            if difference := self.first_difference(value, other):
                return difference.below(f"[{number}]")
        return None

    def _sets(self, before: Set[Any], after: Set[Any]) -> Difference | None:
        if len(before) != len(after):
            return Difference("", f"{len(before)} items would arrive as {len(after)}")
        left = [other for other in after if other not in before]
        for value in before:
            if value in after:
                continue
            match = next((n for n, other in enumerate(left) if self.first_difference(value, other) is None), None)
            if match is None:
                return Difference("", f"an item of type {type(value).__name__} would arrive as another value")
            del left[match]
        return None

    def _scalars(self, before: Any, after: Any) -> Difference | None:
        kind = type(before)
        if issubclass(kind, Iterator):
            return None  # used up by being stored, so there is nothing left to compare
        if issubclass(kind, (SecretStr, SecretBytes, Secret)):
            is_same = type(after) is kind and before.get_secret_value() == after.get_secret_value()
            return None if is_same else Difference("", f"a {kind.__name__} is stored as asterisks", "secret")
        if issubclass(kind, str):
            text = storable_text(before) if self.cleaned_text and not issubclass(kind, Enum) else before
            return None if text == after else _changed(before, after)
        if issubclass(kind, (float, Decimal)) and not math.isfinite(before):
            is_same = isinstance(after, kind) and (before == after or (math.isnan(before) and math.isnan(after)))
            return None if is_same else Difference("", "NaN and infinity are not JSON")
        if issubclass(kind, datetime) and isinstance(after, datetime):
            return None if _moment(before) == _moment(after) else _changed(before, after)
        return (
            None
            if _is_equal(kind, before, after) or self._has_same_state(kind, before, after)
            else _changed(before, after)
        )

    def _has_same_state(self, kind: type, before: Any, after: Any) -> bool:
        """Return whether two objects of a class without `__eq__` hold the same."""
        if type(after) is not kind or getattr(kind, "__eq__", None) is not object.__eq__:
            return False
        names = dict.fromkeys([*getattr(before, "__dict__", ()), *_slots(kind)])
        return self._named(before, after, names) is None

    def _is_json_form(self, before: Any, after: Any) -> bool:
        if isinstance(before, float):
            return False
        try:
            form = to_jsonable_python(before, by_alias=False, inf_nan_mode="constants")
        except (ValueError, RecursionError):
            return False
        return (
            type(form) is not type(before)
            and Comparison(cleaned_text=self.cleaned_text).first_difference(form, after) is None
        )


@lru_cache(maxsize=1_000)
def _is_plain(kind: type[BaseModel]) -> bool:
    """Return whether `==` says all about two instances: the fields hold only atoms, and plain containers of them."""
    return kind.model_config.get("extra") != "allow" and all(
        _is_plain_type(field.annotation) for field in kind.model_fields.values()
    )


def _is_plain_type(annotation: Any) -> bool:
    origin = get_origin(annotation)
    if origin is None:
        return annotation in _ATOMS or annotation is datetime
    return origin in _PLAIN_CONTAINERS and all(
        argument is Ellipsis or _is_plain_type(argument) for argument in get_args(annotation)
    )


def _lost(name: str, after: object) -> Difference:
    return Difference(name, f"{type(after).__name__} has no such field, so it would be lost", "subclass")


def _declared(kind: type[BaseModel], name: str, field: FieldInfo, difference: Difference) -> Difference:
    """Return a field's difference, with the declaration of its model that causes it."""
    if field.exclude:
        return Difference(name, "the field is declared with exclude=True, so its value would be lost", "excluded")
    decorators = kind.__pydantic_decorators__
    by_name = (serializer.info.fields for serializer in decorators.field_serializers.values())
    annotated = any(isinstance(item, (PlainSerializer, WrapSerializer)) for item in field.metadata)
    if annotated or decorators.model_serializers or any(name in names or "*" in names for names in by_name):
        return Difference(
            name, f"its serializer writes what does not load as the same value ({difference.problem})", "serializer"
        )
    return difference.below(name)


def _origin(kind: type) -> type:
    """Return a generic model without its parameters: an instance of `Box` may be loaded as a `Box[int]`."""
    generic: Mapping[str, Any] = getattr(kind, "__pydantic_generic_metadata__", {})
    return generic.get("origin") or kind


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray))


def _json_key(key: object) -> object:
    """Return a dictionary's key as JSON has it."""
    try:
        return next(iter(to_jsonable_python({key: None}, by_alias=False)))
    except ValueError:
        return _MISSING


def _moment(value: datetime) -> datetime:
    """Return an aware time in UTC: around a change of the clock, times of two zones never compare equal."""
    try:
        return value if value.utcoffset() is None else value.astimezone(UTC)
    except OverflowError:
        return value


def _is_equal(kind: type, before: Any, after: Any) -> bool:
    try:
        return bool(before == after)
    except Exception:  # noqa: BLE001  # such as an array, which has no single answer
        return type(after) is kind and repr(before) == repr(after)


def _slots(kind: type) -> Iterator[str]:
    for base in kind.__mro__:
        slots = base.__dict__.get("__slots__", ())
        yield from (slots,) if isinstance(slots, str) else slots


def _changed(before: object, after: object) -> Difference:
    if type(before) is type(after):
        return Difference("", f"the {type(before).__name__} would arrive as another value")
    return Difference("", f"a {type(before).__name__} would arrive as a {type(after).__name__}")
