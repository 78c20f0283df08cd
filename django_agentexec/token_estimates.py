"""Estimates of the input tokens of a call of a model, before it is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import to_jsonable_python

BYTES_PER_TOKEN = 3
"""Of text; tokenizers need 4 to 5 for English and 3 for Chinese or code, so that the estimate is rather too high."""
MEDIA_TOKENS = 1_500
"""Of an image or file, whose size says little about its tokens."""
_MEDIA_KEYS = frozenset({"image_url", "file_data", "file_id", "file_url", "input_audio"})


def estimated_tokens(content: Any) -> int:
    """Return the tokens of JSON-like content; other objects count by their JSON or their text."""
    if content is None:
        return 0
    if isinstance(content, str):
        return MEDIA_TOKENS if content.startswith("data:") else _size(content)
    if isinstance(content, Mapping):
        return sum(_of_entry(str(key), value) for key, value in content.items())
    if isinstance(content, (list, tuple)):
        return sum(map(estimated_tokens, content))
    if isinstance(content, (bool, int, float)):
        return _size(str(content))
    return estimated_tokens(to_jsonable_python(content, bytes_mode="base64", fallback=repr, serialize_unknown=True))


def _of_entry(key: str, value: Any) -> int:
    return _size(key) + (MEDIA_TOKENS if key in _MEDIA_KEYS and value else estimated_tokens(value))


def _size(text: str) -> int:
    return -(-len(text.encode(errors="replace")) // BYTES_PER_TOKEN)
