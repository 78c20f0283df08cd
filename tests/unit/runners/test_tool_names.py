"""Names of tools in `in_doubt` that no agent of a run has."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from agents import Agent, Handoff, function_tool, handoff
from agents.mcp import MCPServerStdio

from django_agentexec import InvalidOption
from django_agentexec.runners.openai.tool_names import ToolNames


@function_tool
def send_letter(to: str) -> str:
    """Send a letter."""
    return to


@function_tool
def charge(amount: int) -> str:
    """Charge."""
    return str(amount)


def server(**options: Any) -> MCPServerStdio:
    return MCPServerStdio({"command": "notes"}, **options)


def test_a_misspelled_name_is_an_error_with_the_names_of_the_tools() -> None:
    agent = Agent("Clerk", tools=[send_letter, charge])

    with pytest.raises(InvalidOption, match=r"names 'send_leter', but agent 'Clerk'.*'charge', 'send_letter'.*mean"):
        ToolNames(["charge", "send_leter"]).begin(agent)
    with pytest.raises(InvalidOption, match="has no tools"):
        ToolNames(["send"]).begin(Agent("Clerk"))


def test_tools_of_handoffs_and_of_agents_used_as_tools_count() -> None:
    writer = Agent("Writer", tools=[send_letter])
    cashier = Agent("Cashier", tools=[charge], handoffs=[handoff(writer)])
    clerk = Agent("Clerk", tools=[cashier.as_tool("ask_cashier", "Ask the cashier.")])
    writer.handoffs = [clerk]

    ToolNames(["", "send_letter", "charge", "ask_cashier"]).begin(clerk)


def test_a_name_that_an_earlier_run_or_attempt_has_seen_is_known() -> None:
    names = ToolNames(["send_letter"])
    names.begin(Agent("Writer", tools=[send_letter]))
    names.begin(Agent("Reader"))

    ToolNames(["removed"]).begin(Agent("Writer"), recorded={"removed"})


def test_tools_of_mcp_servers_are_checked_when_they_are_listed() -> None:
    clerk = Agent("Clerk", tools=[charge], mcp_servers=[server()])

    names = ToolNames(["read_note"])
    names.begin(clerk)
    names.listed(clerk, ["charge", "read_note"])

    names = ToolNames(["read_nots"])
    names.begin(clerk)
    with pytest.raises(InvalidOption, match=r"'read_nots'.*Did you mean 'read_note'"):
        names.listed(clerk, ["charge", "read_note"])


@pytest.mark.parametrize(
    "agent",
    [
        Agent("Clerk", mcp_servers=[server(tool_filter=lambda *_: True)]),
        Agent("Clerk", tools=[Agent("Inner", mcp_servers=[server()]).as_tool("inner", "Ask.")]),
        Agent("Clerk", handoffs=[Handoff("to_anybody", "", {}, lambda *_: None, "Anybody")]),  # type: ignore[arg-type]
    ],
)
def test_tools_that_cannot_be_known_are_a_warning(agent: Agent[Any], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "django_agentexec"):
        ToolNames(["read_note"]).begin(agent)
    assert "in_doubt names 'read_note'" in caplog.text
