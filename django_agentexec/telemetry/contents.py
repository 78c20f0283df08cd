"""The content of calls as attributes of spans: only with the setting `OTEL_CONTENT`."""

from __future__ import annotations

import json
from typing import Any

from pydantic_core import to_json

from ..calls.content import redacted
from ..conf import conf
from ..models import AgentCall, CallKind


def content_of(call: AgentCall) -> dict[str, str]:
    """Return inputs and outputs of a call, as far as `TRACE_CONTENT` permits and as `TRACE_REDACT` leaves them."""
    if conf.TRACE_CONTENT == "none":
        return {}
    values: dict[str, tuple[str, Any]] = {}  # with the names of the fields
    has_inputs = conf.TRACE_CONTENT == "full"
    if call.kind == CallKind.TOOL:
        values["gen_ai.tool.call.result"] = "output", call.output
        if has_inputs:
            values["gen_ai.tool.call.arguments"] = "arguments", call.arguments
    elif call.kind in (CallKind.AGENT, CallKind.MODEL):
        values["gen_ai.output.messages"] = "output", None if call.output is None else _answers(call.output)
        if has_inputs:
            values["gen_ai.input.messages"] = (
                "arguments" if call.kind == CallKind.AGENT else "request",
                _questions(call),
            )
            values["gen_ai.system_instructions"] = "request", _instructions(call)
    shown: dict[str, str] = {}
    for name, (field, value) in values.items():
        if value not in (None, []):
            value, is_hidden = redacted(value, field, call)
            if not is_hidden:
                shown[name] = _text(value)
    return shown


def _text(value: Any) -> str:
    return value if isinstance(value, str) else to_json(value, fallback=str, serialize_unknown=True).decode()


def _questions(call: AgentCall) -> list[dict[str, Any]]:
    """Return the input of a run, or of a model call whose request is recorded, as messages."""
    given: Any = call.arguments if call.kind == CallKind.AGENT else (call.request or {}).get("input")
    items = given if isinstance(given, list) else [] if given is None else [{"role": "user", "content": given}]
    return [
        {"role": item.get("role", "user"), "parts": [{"type": "text", "content": _text(item.get("content", item))}]}
        for item in items
        if isinstance(item, dict)
    ]


def _instructions(call: AgentCall) -> list[dict[str, Any]]:
    found = call.request.get("instructions") if isinstance(call.request, dict) else None
    return [{"type": "text", "content": found}] if found else []


def _answers(output: Any) -> list[dict[str, Any]]:
    """Return an answer as a message of the assistant."""
    items = output.get("output") if isinstance(output, dict) else None
    if not isinstance(items, list):
        parts = [{"type": "text", "content": _text(output)}]
    else:
        parts = [part for item in items for part in _parts(item)]
    calls_tools = any(part["type"] == "tool_call" for part in parts)
    return [{"role": "assistant", "parts": parts, "finish_reason": "tool_call" if calls_tools else "stop"}]


def _parts(item: dict[str, Any]) -> list[dict[str, Any]]:
    if item.get("type") == "message":
        return [{"type": "text", "content": part.get("text", "")} for part in item.get("content", [])]
    if item.get("type") == "function_call":
        return [
            {
                "type": "tool_call",
                "id": item.get("call_id"),
                "name": item.get("name"),
                "arguments": _loaded(item.get("arguments", "")),
            }
        ]
    return [{"type": str(item.get("type", "unknown")), "content": item}]


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
