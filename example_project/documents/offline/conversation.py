"""The conversation so far, in the form that the planners need."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import BaseModel


@dataclass(frozen=True)
class ToolCall:
    """A call of a tool: requested, or (with its output) finished."""

    name: str
    arguments: Mapping[str, Any]
    output: str = ""


Turn = list[ToolCall] | BaseModel  # the next turn: tool calls, or an answer


class Planner(Protocol):
    """Interface that returns the next turn; the modules `offline.research` and `offline.review` implement it."""

    def next_turn(self, conversation: Conversation) -> Turn: ...


@dataclass(frozen=True)
class Conversation:
    """The user's request, the tool calls so far, and whether the answer is due."""

    request: str
    calls: list[ToolCall]
    must_answer: bool

    @classmethod
    def from_input(cls, items: str | list[Any]) -> Conversation:
        """Read a model's input, in the format of OpenAI's Responses API."""
        if isinstance(items, str):
            return cls(items, [], must_answer=False)
        outputs = {
            item["call_id"]: _text(item["output"]) for item in items if item.get("type") == "function_call_output"
        }
        calls = [
            ToolCall(item["name"], json.loads(item["arguments"] or "{}"), outputs[item["call_id"]])
            for item in items
            if item.get("type") == "function_call" and item["call_id"] in outputs
        ]
        messages = [_text(item.get("content", "")) for item in items if item.get("role") == "user"]
        # A second message of the user after tool calls requests the answer, even if it is incomplete.
        is_urged = bool(calls) and items[-1].get("role") == "user"
        return cls(messages[0] if messages else "", calls, must_answer=is_urged)

    def asked(self, field: str) -> str:
        """Return the text after `field:` in the request, or an empty string."""
        found = re.search(rf"^{field}:\s*(.+)$", self.request, re.MULTILINE)
        return found[1].strip() if found else ""

    def outputs(self, tool: str) -> list[str]:
        """Return the outputs of `tool`, call by call."""
        return [call.output for call in self.calls if call.name == tool]

    def pages(self) -> dict[int, str]:
        """Return the pages read so far, by number, without the line that names them."""
        pages = {}
        for output in self.outputs("read_page"):
            if heading := re.match(r"\[.+, page (\d+) of \d+\]\n\n", output):
                pages[int(heading[1])] = output[heading.end() :]
        return pages


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "\n".join(str(part.get("text", "")) for part in value if isinstance(part, dict))
