"""The app's tasks. django-agentexec imports this module by its name."""

from __future__ import annotations

from uuid import UUID

from django_agentexec import OpenAIRunner, task

from .assistants import company_analyst, contract_reviewer
from .letters import letter_writer
from .library import DocumentNotFound
from .model import build_model
from .research import PortfolioPipeline
from .schemas import (
    CheckedBrief,
    CheckedReview,
    CompanyBrief,
    ContractContext,
    ContractReview,
    Letter,
    LetterContext,
    ResearchContext,
)
from .shelf import Shelf
from .verification import checked_brief, checked_review

__all__ = ["PortfolioPipeline", "contract_letter", "research_company", "review_contract"]

MAX_TURNS = 40  # a turn for each page and search, and a margin


@task("research_company", lock_key="company:{company}", api=True, give_up_on=[DocumentNotFound])
async def research_company(agent_id: UUID, context: ResearchContext) -> CheckedBrief:
    """Read a company's report and return the main facts about the company, with quotes and figures verified."""
    shelf = await Shelf.of(agent_id)
    document = shelf.get(context.document)  # a wrong name fails here, before it costs tokens
    runner = OpenAIRunner(agent_id, max_turns_recovery=True)
    agent = company_analyst(build_model(), runner.tools.report_status, runner.prompts.report_status)
    request = f"Company: {context.company}\nDocument: {context.document}"
    result = await runner.run(agent, request, context=shelf, max_turns=MAX_TURNS)
    brief = result.final_output_as(CompanyBrief, raise_if_incorrect_type=True)
    return checked_brief(brief, document, result.new_items)


@task("review_contract", lock_key="document:{document}", api=True, give_up_on=[DocumentNotFound])
async def review_contract(agent_id: UUID, context: ContractContext) -> CheckedReview:
    """Read a contract and return its parties, dates, sums and risky clauses, with quotes verified."""
    shelf = await Shelf.of(agent_id)
    document = shelf.get(context.document)
    runner = OpenAIRunner(agent_id, max_turns_recovery=True)
    agent = contract_reviewer(build_model(), runner.tools.report_status, runner.prompts.report_status)
    result = await runner.run(agent, f"Document: {context.document}", context=shelf, max_turns=MAX_TURNS)
    review = result.final_output_as(ContractReview, raise_if_incorrect_type=True)
    return checked_review(review, document, result.new_items)


@task("contract_letter", api=True, give_up_on=[DocumentNotFound])
async def contract_letter(agent_id: UUID, context: LetterContext) -> Letter:
    """Write a letter to the other party of a contract, and send it once a person has approved."""
    shelf = await Shelf.of(agent_id)
    shelf.get(context.document)
    runner = OpenAIRunner(agent_id)
    agent = letter_writer(build_model(), runner.tools.report_status, runner.prompts.report_status)
    request = f"Document: {context.document}\nRecipient: {context.recipient}"
    result = await runner.run(agent, request, context=shelf)
    return result.final_output_as(Letter, raise_if_incorrect_type=True)
