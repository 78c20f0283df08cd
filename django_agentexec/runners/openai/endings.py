"""Ends of a run other than a final output: no turns left, a guardrail, or tool calls that need an approval."""

from __future__ import annotations

from typing import Any

from agents import (
    InputGuardrailTripwireTriggered,
    OutputGuardrailTripwireTriggered,
    RunResultStreaming,
    ToolInputGuardrailTripwireTriggered,
    ToolOutputGuardrailTripwireTriggered,
    TResponseInputItem,
)
from agents.items import ToolApprovalItem
from agents.run_config import RunOptions
from pydantic_core import to_json

from django_agentexec.current import OwningAttempt
from django_agentexec.exceptions import UnhandledInterruption

MAX_OUTPUT = 1_000  # characters of a guardrail's output in an error
Tripwire = (
    InputGuardrailTripwireTriggered
    | OutputGuardrailTripwireTriggered
    | ToolInputGuardrailTripwireTriggered
    | ToolOutputGuardrailTripwireTriggered
)


def is_out_of_turns(result: RunResultStreaming) -> bool:
    """Return whether the run itself has used up its turns."""
    # An agent used as a tool may also run out of turns; only this run's limit starts a recovery.
    return result.max_turns is not None and result.current_turn > result.max_turns


def unsaved_conversation(result: RunResultStreaming, options: RunOptions[Any]) -> list[TResponseInputItem]:
    """Return the input items that the model needs to know the whole conversation of `result`."""
    if options.get("session") is not None:
        return []  # the SDK stores each turn in the session and reads it from there
    if options.get("conversation_id") or options.get("previous_response_id"):
        # The server stores everything except the outputs of the last turn's calls, which the next turn sends.
        answers: list[TResponseInputItem] = []
        for item in reversed(result.new_items):
            if item.type not in ("tool_call_output_item", "handoff_output_item"):
                break
            answers.insert(0, item.to_input_item())
        return answers
    # "normalized" is the input of the next turn, also after a handoff with an input filter.
    return result.to_input_list(mode="normalized")


def name_guardrail(error: Tripwire) -> None:
    """Replace the text of `error`, in which the SDK names only a class, by one with the guardrail's name and output."""
    if isinstance(error, (InputGuardrailTripwireTriggered, OutputGuardrailTripwireTriggered)):
        guardrail: Any = error.guardrail_result.guardrail
        output = error.guardrail_result.output.output_info
    else:
        guardrail, output = error.guardrail, error.output.output_info
    error.args = (f"Guardrail {guardrail.get_name()} triggered its tripwire{_output_text(output)}.",)


def _output_text(output: Any) -> str:
    if output is None:
        return ""
    try:
        text = output if isinstance(output, str) else to_json(output, fallback=repr).decode()
    except Exception:  # noqa: BLE001  # the repr of an output may raise anything
        text = f"a {type(output).__name__}"
    return f": {text[:MAX_OUTPUT]}"


class ObservedInterruptions(list[ToolApprovalItem]):
    """The interruptions of a result. `was_read` is set by any access, including `result.to_state()`."""

    was_read = False

    def __len__(self) -> int:
        self.was_read = True
        return super().__len__()

    def __iter__(self):  # type: ignore[no-untyped-def]  # like list
        self.was_read = True
        return super().__iter__()

    def __getitem__(self, place):  # type: ignore[no-untyped-def]  # like list
        self.was_read = True
        return super().__getitem__(place)


def expect_decision(result: RunResultStreaming, attempt: OwningAttempt) -> None:
    """Make `attempt` fail if its handler returns without having read the interruptions of `result`."""
    if not result.interruptions:
        return
    agent = result.last_agent.name
    tools = ", ".join(dict.fromkeys(item.tool_name or "?" for item in result.interruptions))
    observed = ObservedInterruptions(result.interruptions)
    result.interruptions = observed

    def check() -> None:
        if not observed.was_read:
            raise UnhandledInterruption(
                f"Agent {agent} needs an approval of {tools}, but the handler has returned without a decision. "
                "Read result.interruptions, approve or reject them on result.to_state(), and run the agent with that "
                "state."
            )

    attempt.add_completion_check(check)
