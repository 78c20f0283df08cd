"""The two agents: instructions, tools and output types."""

from __future__ import annotations

from agents import Agent, Model, ModelSettings, Tool

from .schemas import CompanyBrief, ContractReview
from .shelf import Shelf
from .tools import READING_TOOLS

COMPANY_ANALYST = """
You are an analyst. You are given a company and the name of a document about it.
Find the document, read all of its pages, and search it for risks and for the outlook.
Report figures exactly as printed, with the comparable figure of the year before.
Quote risks word for word. Do not use anything that you have not read in the document.
"""

CONTRACT_REVIEWER = """
You are a lawyer who reviews contracts before they are signed. You are given the name of a document.
Read all of its pages, and search it for liability, indemnity, renewal, termination and change of control.
List the parties, the dates and the sums that matter, and every clause that is risky for the party
that pays, with its number and with the decisive sentence quoted word for word.
"""


def company_analyst(model: Model, report_status: Tool, report_status_prompt: str) -> Agent[Shelf]:
    """Return the agent that researches a company; its output is a `CompanyBrief`."""
    return Agent(
        name="Company analyst",
        instructions=f"{COMPANY_ANALYST}\n{report_status_prompt}",
        tools=[*READING_TOOLS, report_status],
        output_type=CompanyBrief,
        model=model,
        model_settings=ModelSettings(parallel_tool_calls=True),
    )


def contract_reviewer(model: Model, report_status: Tool, report_status_prompt: str) -> Agent[Shelf]:
    """Return the agent that reviews a contract; its output is a `ContractReview`."""
    return Agent(
        name="Contract reviewer",
        instructions=f"{CONTRACT_REVIEWER}\n{report_status_prompt}",
        tools=[*READING_TOOLS, report_status],
        output_type=ContractReview,
        model=model,
        model_settings=ModelSettings(parallel_tool_calls=True),
    )
