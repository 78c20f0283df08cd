"""Paths: the places of runs within a handler, the same in each attempt.

    ""                      the first run of a handler
    "~2", "~3"              later runs, one after another
    "~key=summary"          a run with a key
    "~Writer:1f2e3d4c#0"    a run that overlaps with another run: agent, digest of its input, and a counter
    "^Guard:1f2e3d4c#0"     a run next to the calls of its run, as of an agent in a guardrail
    "+recovery"             the wrap-up after the last turn
    "/0:call_1"             inside the tool call `call_1`, which model call 0 has requested; its runs follow as above

In a pipeline each path begins with the name of the step.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from pydantic_core import to_json

from ..models.calls import MAX_CALL_ID, MAX_PATH

_SEPARATORS = re.compile(r"[~^+/]")
_SIBLING = re.compile(r"~[^~^+/]+")
_INSIDE_CALL = re.compile(r"(.*)/([0-9]{1,9}):[^/…]*", re.DOTALL)
_DIGEST_SIZE = 64


def digest_of(*values: Any) -> str:
    """Return a digest of JSON-like values; what JSON cannot represent counts by its repr."""
    return hashlib.sha256(to_json(values, fallback=repr, serialize_unknown=True)).hexdigest()[:_DIGEST_SIZE]


def clean(name: str) -> str:
    """Return a name without the separators of paths."""
    return _SEPARATORS.sub("-", name)


def joined(path: str, segment: str) -> str:
    """Return `path` with a further segment; a path that would be too long ends in its digest."""
    return _shortened(path + segment, MAX_PATH)


def short_call_id(call_id: str) -> str:
    """Return the id of a tool call as it is stored."""
    return _shortened(call_id, MAX_CALL_ID)


def inside_call(path: str, ordinal: int, call_id: str) -> str:
    """Return the path inside a tool call."""
    return joined(path, f"/{ordinal}:{clean(call_id)}")


def call_around(path: str) -> tuple[str, int] | None:
    """Return path and ordinal of the tool call whose inside is `path`; None if `path` has them not, or not in full."""
    found = _INSIDE_CALL.fullmatch(path)
    return (found[1], int(found[2])) if found else None


def is_run_of(scope: str, path: str) -> bool:
    """Return whether `path` is that of a run which began directly in `scope`."""
    return path == scope or (path.startswith(scope) and _SIBLING.fullmatch(path[len(scope) :]) is not None)


def is_inside(outer: str, path: str) -> bool:
    """Return whether the run at `path` is inside the run at `outer`, as in a tool call, and not that run itself."""
    return path.startswith((f"{outer}/", f"{outer}^", f"{outer}+"))


def is_overlapping(path: str) -> bool:
    """Return whether the run at `path` has overlapped with another run."""
    return "#" in path.rpartition("~")[2]


def _shortened(text: str, size: int) -> str:
    if len(text) <= size:
        return text
    return f"{text[: size - 40]}…{hashlib.sha256(text.encode()).hexdigest()[:32]}"
