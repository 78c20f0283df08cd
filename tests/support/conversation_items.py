"""Items of conversations, in the form in which the agents SDK stores them."""

from __future__ import annotations

from typing import Any


def user(text: str) -> Any:
    """Return a message of a user."""
    return {"role": "user", "content": text}


def answer(text: str) -> Any:
    """Return a message of an agent."""
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}


def call(call_id: str, name: str = "look_up", arguments: str = "{}") -> Any:
    """Return the call of a tool."""
    return {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}


def output(call_id: str, text: str = "fine") -> Any:
    """Return the output of that call."""
    return {"type": "function_call_output", "call_id": call_id, "output": text}
