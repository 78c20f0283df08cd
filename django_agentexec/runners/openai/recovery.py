"""The recovery of a run that has used up its turns: when it applies, and with which input."""

from __future__ import annotations

from typing import Any

from agents import RunResultStreaming, TResponseInputItem
from agents.run_config import RunOptions


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
