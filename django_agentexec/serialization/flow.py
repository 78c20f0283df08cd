"""Types of step results and parameters: compatibility checks and display names."""

from __future__ import annotations

import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from .results import covers, type_name

__all__ = ["covers", "fits", "is_model", "tuple_parts", "type_name"]


def fits(produced: Any, wanted: Any) -> bool:
    """Return whether a value of the annotated type `produced` is accepted where `wanted` is expected."""
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
    """Return whether the type is a Pydantic model."""
    bare = _bare(annotation)
    return isinstance(bare, type) and issubclass(bare, BaseModel)


def _bare(annotation: Any) -> Any:
    return _bare(get_args(annotation)[0]) if get_origin(annotation) is Annotated else annotation


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)
