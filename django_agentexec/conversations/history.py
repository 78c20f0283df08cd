"""Histories of conversations as lists of items: their storage form, their repair, and their trimming.

Items have the form of the SDK's input: messages, tool calls, outputs of tool calls, reasoning, ...
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..exceptions import InvalidOption, ResultError
from ..validation import json_result

Item = dict[str, Any]

OUTPUT_OF = {
    "function_call": "function_call_output",
    "custom_tool_call": "custom_tool_call_output",
    "shell_call": "shell_call_output",
    "apply_patch_call": "apply_patch_call_output",
    "computer_call": "computer_call_output",
    "local_shell_call": "local_shell_call_output",
    "mcp_approval_request": "mcp_approval_response",
}
"""The types of calls that must have an output in a valid history, and the types of their outputs."""
OUTPUTS = frozenset(OUTPUT_OF.values())
CHARACTERS_PER_TOKEN = 4


def history_items(items: Sequence[Any]) -> list[Item]:
    """Return items as JSON objects, as every database gives them back. Raises `InvalidOption`."""
    return [_stored(item) for item in items]


def _stored(item: Any) -> Item:
    try:
        stored = json_result(item)
    except ResultError as error:
        raise InvalidOption(f"The item {item!r:.200} of a conversation cannot be stored as JSON: {error}") from error
    if not isinstance(stored, dict):
        raise InvalidOption(
            f"The item {item!r:.200} of a conversation must be an object, such as "
            "{'role': 'user', 'content': 'Hello'}."
        )
    return stored


def repaired(items: Sequence[Item], keep_from: int | None = None) -> list[Item]:
    """Return the items without calls that have no output, outputs that have no call, and reasoning of dropped calls.

    A turn that was interrupted leaves such items behind, and the APIs of models reject them. Items from the index
    `keep_from` on are kept in any case.
    """
    pairs = _pairs(items)
    paired = {index for pair in pairs for index in pair}
    end = len(items) if keep_from is None else keep_from
    dropped = {
        index
        for index, item in enumerate(items[:end])
        if index not in paired and (_type(item) in OUTPUT_OF or _type(item) in OUTPUTS)
    }
    for index in range(end - 1, -1, -1):
        # Reasoning belongs to the item after it.
        is_for_dropped = index + 1 in dropped and not _reasons_for_next(items, index, dropped)
        if _type(items[index]) == "reasoning" and is_for_dropped:
            dropped.add(index)
    return [item for index, item in enumerate(items) if index not in dropped]


def trimmed(
    items: Sequence[Item], limit: int | None, max_tokens: int | None, count_tokens: Callable[[Item], int]
) -> list[Item]:
    """Return the latest items, at most `limit` and together at most `max_tokens`.

    The first item is never the output of a call that is left out, nor an item whose reasoning is left out.
    """
    start = len(items) - limit if limit is not None and limit >= 0 else 0
    start = max(0, start)
    if max_tokens is not None:
        start = max(start, _start_within(items, max_tokens, count_tokens))
    return list(items[_clean_start(items, start) :]) if start else list(items)


def estimate_tokens(item: Item) -> int:
    """Return the approximate number of tokens of an item: one per four characters of its JSON."""
    return len(json.dumps(item, ensure_ascii=False)) // CHARACTERS_PER_TOKEN + 1


def _start_within(items: Sequence[Item], max_tokens: int, count_tokens: Callable[[Item], int]) -> int:
    start, used = len(items), 0
    while start:
        used += count_tokens(items[start - 1])
        if used > max_tokens:
            break
        start -= 1
    return start


def _clean_start(items: Sequence[Item], start: int) -> int:
    """Return the first index from `start` at which the history may begin."""
    inside: set[int] = set()
    for call, output in _pairs(items):
        inside.update(range(call + 1, output + 1))
    while start < len(items) and (start in inside or _type(items[start - 1]) == "reasoning"):
        start += 1
    return start


def _pairs(items: Sequence[Item]) -> Iterable[tuple[int, int]]:
    """Return the indexes of each call and its output."""
    open_calls: dict[tuple[str, Any], int] = {}
    pairs = []
    for index, item in enumerate(items):
        kind = _type(item)
        if kind in OUTPUT_OF:
            open_calls[OUTPUT_OF[kind], _call_id(item)] = index
        elif kind in OUTPUTS:
            call = open_calls.pop((kind, _call_id(item)), None)
            if call is not None:
                pairs.append((call, index))
    return pairs


def _reasons_for_next(items: Sequence[Item], index: int, dropped: set[int]) -> bool:
    """Return whether the reasoning at `index` is followed by another call of the same answer that stays."""
    following = index + 1
    while following < len(items) and _type(items[following]) in OUTPUT_OF:
        if following not in dropped:
            return True
        following += 1
    return False


def _type(item: Item) -> str:
    kind = item.get("type")
    return kind if isinstance(kind, str) else ""


def _call_id(item: Item) -> str:
    kind = _type(item)
    if kind == "mcp_approval_request":
        found = item.get("id")
    elif kind == "mcp_approval_response":
        found = item.get("approval_request_id")
    else:
        found = item.get("call_id") or item.get("id")
    return str(found)  # the author of an item may write anything
