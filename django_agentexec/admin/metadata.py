"""Metadata as people type it: `key=value` in the filter's form, in the search box, and in addresses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..models import ActivityQuerySet

SAMPLE = 200  # newest rows whose keys are tried by a search for a bare value
MAX_KEYS = 20  # so many of them
MAX_ENTRIES = 10  # of one list; what is beyond is ignored


@dataclass(frozen=True)
class Entry:
    """A key and a value that were asked for, and the parameter of the request that did."""

    parameter: str
    text: str
    key: str
    value: str


def entries_of(parameters: Mapping[str, Sequence[Any]]) -> Iterator[Entry]:
    """Yield what `metadata=key=value` and `metadata.key=value` ask for; what has no key is ignored."""
    for name, texts in parameters.items():
        for text in map(str, texts):
            key, equals, value = (name.partition(".")[2], "=", text) if "." in name else text.strip().partition("=")
            if key and equals:
                yield Entry(name, text, key, value)


def known_keys(activities: ActivityQuerySet) -> list[str]:
    """Return the first metadata keys of the newest rows; one query."""
    newest = activities.order_by("-agent_id").values_list("metadata", flat=True)[:SAMPLE]
    return list(dict.fromkeys(key for metadata in newest for key in metadata or {}))[:MAX_KEYS]
