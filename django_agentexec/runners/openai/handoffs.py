"""Durable handoffs: the function of a handoff (`on_handoff`) may have an effect, and is called once, like a tool."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from agents import Agent, Handoff
from django.utils import timezone

from django_agentexec.calls.position import Position, current_position
from django_agentexec.models import CallKind, CallState

from .wire import loaded_json


def durable_handoff(handoff: Handoff[Any, Any], copy_of: Callable[[Agent[Any]], Agent[Any]]) -> Handoff[Any, Any]:
    """Return `handoff` with a record of its call. It leads to the `copy_of` its agent."""
    original = handoff.on_invoke_handoff

    async def on_invoke(context: Any, arguments: str) -> Any:
        position = current_position()
        call_id = "" if position is None else _call_id(position, handoff.tool_name)
        target: Any = None
        if position is not None and position.tool_call(call_id) is not None and handoff._agent_ref is not None:
            target = handoff._agent_ref()
        if target is None:
            target = await original(context, arguments)
            if position is not None:
                await _record(position, call_id, handoff.tool_name, arguments)
        return copy_of(target)

    return replace(handoff, on_invoke_handoff=on_invoke)


def _call_id(position: Position, name: str) -> str:
    """Return the id of the call by which the latest answer hands off."""
    answer = position.journal.find(position.path, CallKind.MODEL, max(0, position.ordinal - 1))
    output: Any = answer.output if answer is not None else None
    items = output["output"] if output else []
    return next((str(item.get("call_id", "")) for item in items if item.get("name") == name), "")


async def _record(position: Position, call_id: str, name: str, arguments: str) -> None:
    if position.tool_call(call_id) is not None:
        return  # by an attempt whose handoff had another agent
    call = position.journal.new_call(position.path, CallKind.TOOL, max(0, position.ordinal - 1), call_id)
    call.agent, call.name, call.arguments = position.agent[:200], name[:200], loaded_json(arguments)
    call.state, call.started_at = CallState.DONE, timezone.now()
    await position.journal.finish(call)
