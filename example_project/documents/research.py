"""Several agents on one question: a scout finds the companies, one agent researches each, an editor compares them.

A pipeline keeps paid results after a failure, and runs the researches in parallel, as child activities, while it
waits without a slot.
"""

from __future__ import annotations

from agents import Agent, function_tool
from pydantic import BaseModel, Field

from django_agentexec import OpenAIRunner, Pipeline, step

from .library import all_documents
from .model import build_model
from .schemas import CheckedBrief, ResearchContext, reservations
from .verification import unused_tools

OPENING = 240  # characters that suffice to recognize a document

SCOUT = """
You are given the openings of all documents. Find those that report on a company's business, and name each company.
Leave out contracts and terms.
"""

EDITOR = """
You are given what analysts have found out about several companies, as JSON. Compare them: say whose revenue grew most
and whose least, and name the gravest risk of each. Do not use anything that is not in there.
"""


class PortfolioContext(BaseModel):
    """The companies to compare."""

    subject: str = "all companies of the library"


class Candidates(BaseModel):
    """The companies that a scout has found, each with the document about it."""

    companies: list[ResearchContext]


class CheckedCandidates(Candidates):
    """Candidates, with notes on whether the scout has read the documents."""

    notes: list[str] = Field(default_factory=list)


class Briefs(BaseModel):
    """The briefs of the analysts."""

    briefs: list[CheckedBrief]
    notes: list[str] = Field(default_factory=list)


class CompanyLine(BaseModel):
    """One company of the comparison."""

    company: str
    revenue_change: str = Field(description="As printed, or empty.")
    gravest_risk: str


class PortfolioReport(BaseModel):
    """The companies side by side."""

    headline: str = Field(description="One sentence for somebody in a hurry.")
    companies: list[CompanyLine]


class CheckedReport(PortfolioReport):
    """A comparison that was verified against the briefs."""

    notes: list[str] = Field(default_factory=list, description="Reservations about the answer.")


@function_tool
def read_openings() -> str:
    """Return the name and the opening of every document, in separate paragraphs."""
    return "\n\n".join(f"{document.name}: {' '.join(document.text[:OPENING].split())}" for document in all_documents())


class PortfolioPipeline(Pipeline):
    """Pipeline that finds companies, researches each in parallel, and compares them."""

    @step(0, "find companies", max_retries=2)
    async def discover(self, context: PortfolioContext) -> CheckedCandidates:
        """Let a scout read the library."""
        agent = Agent("Scout", instructions=SCOUT, tools=[read_openings], output_type=Candidates, model=build_model())
        result = await OpenAIRunner(self.agent_id).run(agent, f"Subject: {context.subject}")
        found = result.final_output_as(Candidates, raise_if_incorrect_type=True)
        return CheckedCandidates(companies=found.companies, notes=unused_tools(result.new_items, [read_openings]))

    @step(1, "research each")
    async def research(self, candidates: CheckedCandidates) -> Briefs:
        """Let an analyst research each company; results of an earlier try are kept."""
        found = await self.agather(
            *(self.aspawn("research_company", company, key=company.document) for company in candidates.companies)
        )
        return Briefs(briefs=list(found), notes=candidates.notes)

    @step(2, "compare", max_retries=2)
    async def compare(self, found: Briefs) -> CheckedReport:
        """Let an editor compare the briefs."""
        agent = Agent("Editor", instructions=EDITOR, output_type=PortfolioReport, model=build_model())
        result = await OpenAIRunner(self.agent_id).run(agent, found.model_dump_json())
        report = result.final_output_as(PortfolioReport, raise_if_incorrect_type=True)
        return CheckedReport(**report.model_dump(), notes=[*found.notes, *_reservations(report, found.briefs)])


def _reservations(report: PortfolioReport, briefs: list[CheckedBrief]) -> list[str]:
    """Return statements of the comparison without a basis in the briefs, and the reservations of the briefs."""
    changes = {brief.company: {figure.change for figure in brief.figures} for brief in briefs}
    notes = []
    for line in report.companies:
        if line.company not in changes:
            notes.append(f"{line.company} was not researched.")
        elif line.revenue_change and line.revenue_change not in changes[line.company]:
            notes.append(f"The change {line.revenue_change} of {line.company} is not in its brief.")
    return notes + [f"{brief.company}: {note}" for brief in briefs for note in reservations(brief.model_dump())]
