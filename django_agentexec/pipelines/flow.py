"""Types of step results and parameters: compatibility checks and display names."""

from __future__ import annotations

import json
import re
import types
from collections import Counter
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

NoneType = type(None)
MAX_UNORDERED_ITEMS = 1_000  # longer lists are not compared pair by pair


def fits(produced: Any, wanted: Any) -> bool:
    """Whether a value of the annotated type `produced` is accepted where `wanted` is expected."""
    produced, wanted = _bare(produced), _bare(wanted)
    if produced == wanted or wanted in (Any, object) or produced is Any:
        return True
    if _is_union(produced):
        return all(fits(member, wanted) for member in get_args(produced))
    if _is_union(wanted):
        return any(fits(produced, member) for member in get_args(wanted))
    if get_origin(produced) is Literal:
        values = get_args(produced)
        if get_origin(wanted) is Literal:
            return set(values) <= set(get_args(wanted))
        return all(fits(type(value), wanted) for value in values)
    origins = get_origin(produced) or produced, get_origin(wanted) or wanted
    if not all(isinstance(origin, type) for origin in origins) or not issubclass(*origins):
        return False
    given, expected = get_args(produced), get_args(wanted)
    if not given or not expected:
        return True
    return len(given) == len(expected) and all(fits(*pair) for pair in zip(given, expected, strict=True))


def tuple_parts(annotation: Any) -> tuple[Any, ...] | None:
    """Return the item types of a tuple of fixed length (which is unpacked into parameters), or None."""
    annotation = _bare(annotation)
    if get_origin(annotation) is not tuple:
        return None
    parts = get_args(annotation)
    return None if Ellipsis in parts else tuple(parts)


def is_model(annotation: Any) -> bool:
    """Whether the type is a Pydantic model."""
    bare = _bare(annotation)
    return isinstance(bare, type) and issubclass(bare, BaseModel)


def type_name(annotation: Any) -> str:
    """Return a type as it is written in code, without module names."""
    if annotation is NoneType:
        return "None"
    if isinstance(annotation, type) and not get_args(annotation):
        return annotation.__name__
    return re.sub(r"(?:\w+\.|<locals>\.)+(?=\w)", "", str(annotation))


def covers(new: Any, stored: Any) -> bool:
    """Whether the JSON value `new` contains all data of `stored`; objects may have additional keys.

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


def _bare(annotation: Any) -> Any:
    return _bare(get_args(annotation)[0]) if get_origin(annotation) is Annotated else annotation


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)
