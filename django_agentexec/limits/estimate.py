"""Estimates of the tokens of a call, before it is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

BYTES_PER_TOKEN = 3
"""Of text; English has 4 to 5, so that the estimate is rather too high. The tokens used replace it afterwards."""
ITEM_TOKENS = 4
"""Of the frame of a message or tool."""
MEDIA_TOKENS = 1_500
"""Of an image or file, whose size says little about its tokens."""
OUTPUT_TOKENS = 1_000
"""Of an answer without `max_tokens`."""
_MEDIA_KEYS = frozenset({"image_url", "file_data", "file_id", "file_url", "input_audio"})


def estimated_tokens(contents: Iterable[Any], max_tokens: int | None) -> int:
    """Return the tokens of JSON-like input, plus `max_tokens` of output."""
    return sum(map(_tokens, contents)) + (OUTPUT_TOKENS if max_tokens is None else max_tokens)


def _tokens(value: Any) -> int:
    if isinstance(value, str):
        if value.startswith("data:"):
            return MEDIA_TOKENS
        return -(-len(value.encode(errors="replace")) // BYTES_PER_TOKEN)
    if isinstance(value, Mapping):
        media = sum(MEDIA_TOKENS for key, each in value.items() if key in _MEDIA_KEYS and each)
        return ITEM_TOKENS + media + sum(_tokens(each) for key, each in value.items() if key not in _MEDIA_KEYS)
    if isinstance(value, (list, tuple)):
        return sum(map(_tokens, value))
    return 1 if value is not None else 0
