"""`ResultForm`: results of steps and of recorded side effects, as JSON that loads again in the declared type."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import TypeAdapter

from ..conf import conf
from ..exceptions import ResultError
from .comparison import Comparison
from .roundtrip import NotStorable, Store, described, dump_plainly, dump_with, result_problem

NoneType = type(None)
MAX_TYPE_NAME = 500  # characters; the column's size
MAX_UNORDERED_ITEMS = 1_000  # longer lists are not compared pair by pair
# Results must load unchanged, except values without a declared type.
_RESULTS = Comparison(untyped_as_json=True, cleaned_text=True)


class TypeChanged(ValueError):
    """A stored result does not fit the declared type any more; the text is the reason."""


@dataclass(frozen=True, slots=True)
class ResultForm:
    """The stored form of results of one type."""

    type: Any
    adapter: TypeAdapter[Any]

    @property
    def type_name(self) -> str:
        """The name of the type."""
        return type_name(self.type)[:MAX_TYPE_NAME]

    def stored(self, value: Any, source: str) -> Any:
        """Return a result as JSON values that `loaded` converts back; `source` names what returned it.

        Raises `ResultError` if the result does not match the declared type, would load with other values, or is too
        large.
        """
        try:
            checked = self.adapter.validate_python(value)
            text = Store(
                dump_with(self.adapter), self._load, _RESULTS, prefers_inputs=True, plain_form="changed"
            ).form_of(checked)
            content = json.loads(text)
        except Exception as error:  # validators of a model may raise anything
            reason = "cannot be stored" if isinstance(error, NotStorable) else f"does not fit {self.type_name}"
            raise ResultError(
                f"{source} returned {type(value).__name__}, which {reason}: {result_problem(error)}"
            ) from error
        if len(text.encode()) > conf.MAX_RESULT_BYTES:
            raise ResultError(
                f"The result of {source[0].lower()}{source[1:]} has {len(text.encode()):,} bytes of JSON; the limit "
                f"AGENTEXEC['MAX_RESULT_BYTES'] is {conf.MAX_RESULT_BYTES:,}."
            )
        return content

    def loaded(self, stored: Any) -> Any:
        """Return a stored result in the declared type. Raises `TypeChanged` if it does not fit or would lose data."""
        try:
            value = self._load(json.dumps(stored))
        except Exception as error:  # as above
            raise TypeChanged(described(error)) from error
        if not any(covers(form, stored) for form in self._forms(value)):
            raise TypeChanged("data would be lost")
        return value

    def _load(self, text: str) -> Any:
        return self.adapter.validate_json(text, by_alias=True, by_name=True)

    def _forms(self, value: Any) -> Iterator[Any]:
        """Yield the JSON forms in which a loaded result may have been stored, the current form first."""
        dump = dump_with(self.adapter)
        dumps: list[Callable[[], str]] = [
            lambda: dump(value, True),
            lambda: dump_plainly(value),
            lambda: dump(value, False),
        ]
        for write in dumps:
            with suppress(Exception):  # serializers of a model may raise anything
                yield json.loads(write())


def type_name(annotation: Any) -> str:
    """Return a type as it is written in code, without module names."""
    if annotation is NoneType:
        return "None"
    if isinstance(annotation, type) and not get_args(annotation):
        return annotation.__name__
    return re.sub(r"(?:\w+\.|<locals>\.)+(?=\w)", "", str(annotation))


def covers(new: Any, stored: Any) -> bool:
    """Return whether the JSON value `new` contains all data of `stored`; objects may have additional keys.

    The order of lists is ignored, because a list may represent a set, whose order differs between processes.
    """
    if isinstance(stored, dict):
        return isinstance(new, dict) and all(key in new and covers(new[key], stored[key]) for key in stored)
    if isinstance(stored, list):
        if not isinstance(new, list) or len(new) != len(stored):
            return False
        return all(map(covers, new, stored)) or _covers_in_any_order(new, stored)
    return bool(new == stored)


def _covers_in_any_order(new: list[Any], stored: list[Any]) -> bool:
    if Counter(map(_canonical, new)) == Counter(map(_canonical, stored)):
        return True
    left = list(new) if len(new) <= MAX_UNORDERED_ITEMS else []
    for item in stored:
        match = next((number for number, other in enumerate(left) if covers(other, item)), None)
        if match is None:
            return False
        del left[match]
    return True


def _canonical(item: Any) -> str:
    return json.dumps(item, sort_keys=True)
