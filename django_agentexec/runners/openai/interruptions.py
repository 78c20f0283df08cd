"""Interruptions of a run (tool calls that need an approval), and the check that the handler has read them."""

from __future__ import annotations

from agents import RunResultStreaming
from agents.items import ToolApprovalItem

from django_agentexec.current import OwningAttempt
from django_agentexec.exceptions import UnhandledInterruption


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
