"""What has been said and done so far, as the planners want to see it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import BaseModel


@dataclass(frozen=True)
class ToolCall:
    """A call of a tool: asked for, or (with its output) done."""

    name: str
    arguments: Mapping[str, Any]
    output: str = ""


Turn = list[ToolCall] | BaseModel  # what to do next: call tools, or answer


class Planner(Protocol):
    """Decides about the next turn. `offline.research` and `offline.review` are such modules."""

    def next_turn(self, conversation: Conversation) -> Turn: ...


@dataclass(frozen=True)
class Conversation:
    """The user's request, the tool calls so far, and whether it is time to come to an end."""

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
        # A user who speaks again after tools were called asks for the answer, whatever is missing.
        is_urged = bool(calls) and items[-1].get("role") == "user"
        return cls(messages[0] if messages else "", calls, must_answer=is_urged)

    def asked(self, field: str) -> str:
        """Return what the request says after `field:`, or an empty string."""
        found = re.search(rf"^{field}:\s*(.+)$", self.request, re.MULTILINE)
        return found[1].strip() if found else ""

    def outputs(self, tool: str) -> list[str]:
        """Return what `tool` has returned, call by call."""
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
