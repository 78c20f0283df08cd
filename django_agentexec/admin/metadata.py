"""Metadata in the admin: `key=value` of filter, search box and addresses, and the columns of the list."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from django.core.exceptions import ImproperlyConfigured
from django.utils.html import format_html
from django.utils.safestring import SafeString

from ..conf import conf
from ..models import Activity, ActivityQuerySet, Conversation
from .values import cell_text

SAMPLE = 200  # newest rows whose keys are tried by a search for a bare value
MAX_KEYS = 20  # keys that such a search tries
MAX_VALUES, MAX_SUGGESTED = 50, 100  # values of a key that a form suggests, and the characters of each
MAX_ENTRIES = 10  # of one list; the rest is ignored

EMPTY = SafeString('<span class="ae-quiet">&ndash;</span>')


@dataclass(frozen=True)
class Entry:
    """A key and a value to filter by, and the parameter of the request that names them."""

    parameter: str
    text: str
    key: str
    value: str


def entries_of(parameters: Mapping[str, Sequence[Any]]) -> Iterator[Entry]:
    """Yield the entries of `metadata=key=value` and `metadata.key=value`; a text without a key is ignored."""
    for name, texts in parameters.items():
        for text in map(str, texts):
            key, equals, value = (name.partition(".")[2], "=", text) if "." in name else text.strip().partition("=")
            if key and equals:
                yield Entry(name, text, key, value)


def known_keys(activities: ActivityQuerySet) -> list[str]:
    """Return the first metadata keys of the newest rows; one query."""
    newest = activities.order_by("-agent_id").values_list("metadata", flat=True)[:SAMPLE]
    return list(dict.fromkeys(key for metadata in newest for key in metadata or {}))[:MAX_KEYS]


def known_values(activities: ActivityQuerySet, columns: Iterable[MetadataColumn]) -> dict[str, list[str]]:
    """Return the values of the newest rows under the keys of these columns, in order; one query."""
    found: dict[str, set[str]] = {column.key: set() for column in columns}
    for metadata in activities.order_by("-agent_id").values_list("metadata", flat=True)[:SAMPLE]:
        for key, values in found.items():
            value = (metadata or {}).get(key)
            text = value if isinstance(value, str) else json.dumps(value)
            if value not in (None, "") and len(text) <= MAX_SUGGESTED:
                values.add(text)
    return {key: sorted(values)[:MAX_VALUES] for key, values in found.items()}


@dataclass(frozen=True)
class MetadataColumn:
    """An entry of `AGENTEXEC["ADMIN_METADATA_COLUMNS"]`."""

    key: str
    label: str
    url: str = ""

    def text(self, row: Activity | Conversation) -> str:
        """Return the value of a row, or "" if its metadata does not have the key."""
        value = (row.metadata or {}).get(self.key)
        return "" if value is None else cell_text(value)

    def html(self, row: Activity | Conversation) -> SafeString:
        """Return the value of a row as a cell, with the link of the setting."""
        text = self.text(row)
        if not text:
            return EMPTY
        if not self.url:
            return format_html("{}", text)
        value = str(row.metadata[self.key])
        return format_html('<a href="{}">{}</a>', self.url.replace("{value}", quote(value, safe="")), text)


def metadata_columns() -> list[MetadataColumn]:
    """Return the configured columns. Raises `ImproperlyConfigured` for an entry in another form."""
    return [_column(entry) for entry in conf.ADMIN_METADATA_COLUMNS]


def _column(entry: Any) -> MetadataColumn:
    if isinstance(entry, Mapping) and entry.keys() <= {"key", "label", "url"} and isinstance(entry.get("key"), str):
        url = str(entry.get("url", ""))
        if not url or url.startswith(("/", "https://", "http://")):
            return MetadataColumn(entry["key"], str(entry.get("label", entry["key"])), url)
    raise ImproperlyConfigured(
        f"AGENTEXEC['ADMIN_METADATA_COLUMNS'] has the entry {entry!r}, but each must be a dictionary with the text "
        "`key` and, optionally, `label` and `url`; the URL begins with /, http:// or https://."
    )
