"""Durable tools: each call is recorded before it starts and after it ends; a recorded output is not computed again."""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Awaitable, Callable
from typing import Any

from agents import ApplyPatchTool, ComputerTool, CustomTool, FunctionTool, LocalShellTool, ShellTool, Tool
from agents.tool_context import ToolContext
from django.utils import timezone
from pydantic import TypeAdapter

from django_agentexec.calls.position import Position, current_position, inside_scope
from django_agentexec.exceptions import InvalidOption
from django_agentexec.models import AgentCall, CallKind, CallState
from django_agentexec.validation import one_line

from .approvals import Policies, must_wait, outcome_without_call
from .wire import loaded_json, loaded_output, stored_output

Invoke = Callable[[Any, str], Awaitable[Any]]

_ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)
MISSING_TOOL = "Error: this tool no longer exists."


def durable_tool(tool: Tool, agent: str, policies: Policies) -> Tool:
    """Return `tool` with recorded calls. Hosted tools run at the provider and are part of the model's answer.

    Raises `InvalidOption` for tools whose calls the SDK does not identify.
    """
    if isinstance(tool, FunctionTool):
        return _durable_function(tool, agent, policies)
    if isinstance(tool, CustomTool):
        durable_custom = copy.copy(tool)
        invoke = _as_async(tool.on_invoke_tool)
        durable_custom.on_invoke_tool = _recorded(tool.name, agent, policies, invoke, is_custom=True)
        durable_custom.needs_approval = _rule_of(tool, agent, policies)
        return durable_custom
    if isinstance(tool, (ShellTool, LocalShellTool)):
        if tool.executor is None:
            return tool  # runs at the provider
        durable_shell = copy.copy(tool)
        durable_shell.executor = _recorded_executor(tool.name, agent, policies, tool.executor)
        if isinstance(durable_shell, ShellTool):
            durable_shell.needs_approval = _rule_of(tool, agent, policies)
        return durable_shell
    if isinstance(tool, (ApplyPatchTool, ComputerTool)):
        raise InvalidOption(
            f"Agent {agent!r} has the tool {tool.name!r}, a {type(tool).__name__}, whose calls cannot be recorded: the "
            "SDK does not name the call that it executes. Run the agent with OpenAIRunner(agent_id, durable=False)."
        )
    return tool


def missing_tool(name: str) -> FunctionTool:
    """Return a stub for a tool that a recorded answer calls and the agent no longer has."""

    async def answer(context: ToolContext[Any], arguments: str) -> str:
        return MISSING_TOOL

    return FunctionTool(
        name=name,
        description="",
        params_json_schema={"type": "object", "properties": {}, "additionalProperties": True},
        on_invoke_tool=answer,
        strict_json_schema=False,
    )


def _durable_function(tool: FunctionTool, agent: str, policies: Policies) -> FunctionTool:
    durable = copy.copy(tool)
    is_agent, schema = tool._is_agent_tool, _schema_of(tool)
    # A plain function: the SDK's own invoker would ask for an approval although a decision is recorded.
    durable.on_invoke_tool = _recorded(
        tool.name, agent, policies, tool.on_invoke_tool, is_agent=is_agent, schema=schema
    )

    async def needs_approval(context: Any, arguments: dict[str, Any], call_id: str) -> bool:
        return await must_wait(
            tool.name, agent, arguments, call_id, policies, lambda: _rule(tool, context, arguments, call_id), schema
        )

    if not policies.suspends:
        return durable
    if tool.needs_approval is not False or (not is_agent and policies.in_doubt(tool.name) != "rerun"):
        durable.needs_approval = needs_approval
    return durable


def _schema_of(tool: FunctionTool) -> TypeAdapter[Any] | None:
    """Return the declared type of a tool's output: the SDK validates outputs, also replayed ones."""
    if tool._output_type_adapter is None and tool.output_json_schema is not None:
        return _ANYTHING
    return tool._output_type_adapter


async def _rule(tool: FunctionTool, context: Any, arguments: dict[str, Any], call_id: str) -> bool:
    """Evaluate the approval rule of a tool. As in the SDK, arguments that the tool would change need an approval."""
    if not callable(tool.needs_approval):
        return tool.needs_approval
    prepare = getattr(tool.on_invoke_tool, "prepare_arguments", None)
    prepared = prepare(json.dumps(arguments), tool.name) if prepare is not None else None
    if prepared is not None and not prepared.unchanged:
        return True
    return bool(await _called(tool.needs_approval, context, arguments, call_id))


def _rule_of(tool: Any, agent: str, policies: Policies) -> Any:
    """Return the approval rule of a custom or shell tool, which takes its input in a different form."""
    rule = tool.needs_approval
    if rule is False and policies.in_doubt(tool.name) == "rerun":
        return rule

    async def needs_approval(context: Any, given: Any, call_id: str) -> bool:
        async def evaluate() -> bool:
            return bool(await _called(rule, context, given, call_id)) if callable(rule) else rule

        arguments = {"input": given if isinstance(given, str) else repr(getattr(given, "commands", given))}
        return await must_wait(tool.name, agent, arguments, call_id, policies, evaluate)

    return needs_approval


def _recorded(
    name: str,
    agent: str,
    policies: Policies,
    original: Invoke,
    *,
    is_agent: bool = False,
    is_custom: bool = False,
    schema: TypeAdapter[Any] | None = None,
) -> Invoke:
    async def invoke(context: Any, arguments: str) -> Any:
        position = current_position()
        if position is None:
            return await original(context, arguments)
        changed = position.changed_arguments(context.tool_call_id)
        if changed is not None:
            arguments = changed["input"] if is_custom else json.dumps(changed)
            context.tool_arguments = arguments  # of this call alone
        call = _Call(position, context.tool_call_id, name, agent, arguments, is_agent, schema)
        return await call.run(lambda: original(context, arguments), policies)

    return invoke


def _recorded_executor(name: str, agent: str, policies: Policies, original: Callable[[Any], Any]) -> Any:
    async def execute(request: Any) -> Any:
        position = current_position()
        if position is None:
            return await _called(original, request)
        if position.changed_arguments(request.data.call_id) is not None:
            raise InvalidOption(
                f"The approval of a call of {name!r} has changed its arguments, but the SDK executes the commands of "
                "its model only. Reject such a call, and give the command in the reason."
            )
        action = getattr(request.data, "action", None)
        arguments = json.dumps(getattr(action, "commands", None) or getattr(action, "command", None), default=repr)

        async def call() -> str:
            output = await _called(original, request)
            return output if isinstance(output, str) else _shell_text(output)

        return await _Call(position, request.data.call_id, name, agent, arguments).run(call, policies)

    return execute


class _Call:
    """One call of a tool."""

    def __init__(
        self,
        position: Position,
        call_id: str,
        name: str,
        agent: str,
        arguments: str,
        is_agent: bool = False,
        schema: TypeAdapter[Any] | None = None,
    ) -> None:
        self.position = position
        self.call_id = call_id
        self.name = name
        self.agent = agent
        self.arguments = arguments
        self.is_agent = is_agent
        self.schema = schema

    async def run(self, original: Callable[[], Awaitable[Any]], policies: Policies) -> Any:
        """Return the recorded output, or call the tool and record its output."""
        journal, call = self.position.journal, self.position.tool_call(self.call_id)
        if call is not None and call.state in (CallState.DONE, CallState.IN_DOUBT, CallState.REJECTED):
            return loaded_output(call.output, self.schema)
        is_in_doubt = not self.is_agent and self.position.is_in_doubt(call)
        if call is None:
            ordinal = max(0, self.position.ordinal - 1)
            call = journal.new_call(self.position.path, CallKind.TOOL, ordinal, self.call_id)
        call.agent, call.name = self.agent[:200], self.name[:200]
        call.arguments = loaded_json(self.arguments)
        outcome = outcome_without_call(self.position, self.call_id, self.name, policies, is_in_doubt=is_in_doubt)
        if outcome is not None:
            call.state, call.output = outcome
            await (journal.settle(call) if is_in_doubt else journal.finish(call))
            return call.output
        inside_call = self.position.scope_of_call(self.call_id).path
        journal.active_calls.begin_tool(inside_call)
        try:
            return await self._invoke(call, original)
        finally:
            journal.active_calls.end_tool(inside_call)

    async def _invoke(self, call: AgentCall, original: Callable[[], Awaitable[Any]]) -> Any:
        journal = self.position.journal
        call.state, call.error, call.finished_at, call.started_at = CallState.STARTED, "", None, timezone.now()
        call.attempt, call.fence = journal.attempt.number, journal.attempt.fence
        await journal.begin(call)
        scope = self.position.scope_of_call(self.call_id)
        try:
            with inside_scope(scope):
                output = await original()
        except Exception as error:
            call.state, call.error = CallState.FAILED, one_line(error)
            journal.finish_soon(call)
            raise
        await scope.wait_for_ended_runs()
        if halted := journal.halts.inside(scope.path):  # the output is that of a run that was stopped
            call.state, call.error = CallState.FAILED, one_line(halted)
            journal.finish_soon(call)
            raise halted
        if scope.path not in journal.paused:  # otherwise a run inside it waits for a decision
            call.state, call.output = CallState.DONE, stored_output(output, self.schema)
            call.is_cached = scope.is_reused
            journal.finish_before_next(call)
        return output


def _as_async(function: Callable[[Any, str], Any]) -> Invoke:
    async def call(context: Any, arguments: str) -> Any:
        return await _called(function, context, arguments)

    return call


async def _called(function: Callable[..., Any], *arguments: Any) -> Any:
    value = function(*arguments)
    return await value if inspect.isawaitable(value) else value


def _shell_text(result: Any) -> str:
    outputs = getattr(result, "output", None)
    if not isinstance(outputs, list):
        return str(result)
    return "\n".join("".join(filter(None, (part.stdout, part.stderr))) for part in outputs)
