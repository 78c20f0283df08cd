"""The example checks what its agents claim: quotes and figures by the document, reading by the tool calls."""

from __future__ import annotations

import io
from pathlib import Path
from uuid import UUID

import pytest
from agents import Agent, RunItem, Runner, ToolCallItem, function_tool
from agents.run import RunConfig
from django.core.management.base import OutputWrapper
from django.template import Engine
from openai.types.responses import ResponseFunctionToolCall

from django_agentexec import Status
from django_agentexec.models import Activity
from example_project.documents import research
from example_project.documents.assistants import company_analyst, contract_reviewer
from example_project.documents.demo.screen import Screen
from example_project.documents.offline import OfflineModel
from example_project.documents.research import Briefs, CompanyLine, PortfolioReport
from example_project.documents.schemas import (
    CheckedBrief,
    CompanyBrief,
    CompanyRisk,
    ContractReview,
    Figure,
    RiskyClause,
    reservations,
)
from example_project.documents.shelf import Shelf
from example_project.documents.templatetags import results
from example_project.documents.verification import checked_brief, checked_review

MODEL = OfflineModel(pause=(0, 0))
SILENT = RunConfig(tracing_disabled=True)
FENNIMORE = Shelf().get("fennimore-hydro-annual-report.md")
TEMPLATES = Path(results.__file__).parents[1] / "templates"
NO_CALLS: list[RunItem] = []


@function_tool
def report_status(message: str, percentage: int) -> str:
    """Report progress."""
    return "The status was saved."


def brief(*figures: Figure, quote: str = "") -> CompanyBrief:
    risks = [CompanyRisk(name="Drought", quote=quote)] if quote else []
    return CompanyBrief(
        company="Fennimore Hydro Corporation", period="2026", headline="", unit="million", figures=list(figures),
        risks=risks, outlook="", pages_read=99,
    )  # fmt: skip


def figure(value: str, previous: str = "", change: str = "") -> Figure:
    return Figure(name="Operating income", value=value, previous=previous, change=change)


@pytest.mark.parametrize(
    ("company", "document"),
    [
        ("Fennimore Hydro Corporation", "fennimore-hydro-annual-report.md"),
        ("Marlowe & Pike Grocers plc", "marlowe-pike-quarterly-update.md"),
        ("Sorrel Aviation Leasing DAC", "sorrel-aviation-credit-memo.txt"),
    ],
)
async def test_what_was_read_is_verified(company: str, document: str) -> None:
    agent = company_analyst(MODEL, report_status, "")
    request = f"Company: {company}\nDocument: {document}"
    result = await Runner.run(agent, request, context=Shelf(), max_turns=40, run_config=SILENT)

    checked = checked_brief(result.final_output_as(CompanyBrief), Shelf().get(document), result.new_items)

    assert (checked.unverified_quotes, checked.unverified_figures, checked.notes) == ([], [], [])
    assert checked.pages_read == len(Shelf().get(document).pages)


async def test_a_review_by_an_agent_that_reads_has_no_reservations() -> None:
    agent = contract_reviewer(MODEL, report_status, "")
    result = await Runner.run(agent, "Document: commercial-lease.txt", context=Shelf(), max_turns=40, run_config=SILENT)
    document = Shelf().get("commercial-lease.txt")

    checked = checked_review(result.final_output_as(ContractReview), document, result.new_items)

    assert reservations(checked.model_dump(mode="json")) == []


def test_a_model_that_used_no_tools_is_reported() -> None:
    checked = checked_brief(brief(), FENNIMORE, NO_CALLS)

    assert checked.pages_read == 0
    assert checked.notes == [
        "The model used none of its tools (list_documents, read_page, search_document): what it says is not from the "
        "documents."
    ]


def test_progress_reports_are_no_reading() -> None:
    call = ResponseFunctionToolCall(name="report_status", arguments="{}", call_id="1", type="function_call")
    items: list[RunItem] = [ToolCallItem(agent=Agent("Talker"), raw_item=call)]

    assert checked_brief(brief(), FENNIMORE, items).notes


@pytest.mark.parametrize(
    "found",
    [
        figure("106.7", "83.8", "+27.3%"),
        figure("106.7", "83.8", "+27.4%"),  # rounded in another way
        figure("106.7"),
    ],
)
def test_a_printed_figure_is_verified(found: Figure) -> None:
    assert checked_brief(brief(found), FENNIMORE, NO_CALLS).unverified_figures == []


@pytest.mark.parametrize(
    "found",
    [
        figure("123.4"),  # invented
        figure("06.7"),  # a part of a number
        figure(""),
        figure("106.7", "99.9"),
        figure("106.7", "83.8", "+55.5%"),
        figure("106.7", "83.8", "much better"),
    ],
)
def test_an_invented_figure_is_named(found: Figure) -> None:
    assert checked_brief(brief(found), FENNIMORE, NO_CALLS).unverified_figures == ["Operating income"]


def test_invented_quotes_are_named_for_companies_as_for_contracts() -> None:
    clause = RiskyClause(kind="cap", severity="high", clause="1", reason="", quote="The supplier owes nothing, ever.")
    review = ContractReview(title="", headline="", parties=[], dates=[], amounts=[], risky_clauses=[clause])

    assert checked_brief(brief(quote="It may rain."), FENNIMORE, NO_CALLS).unverified_quotes == ["It may rain."]
    assert checked_review(review, Shelf().get("commercial-lease.txt"), NO_CALLS).unverified_quotes == [clause.quote]


def test_a_comparison_rests_on_its_briefs() -> None:
    known = CheckedBrief(**brief(figure("106.7", "83.8", "+27.3%")).model_dump(), notes=["Nothing was read."])
    report = PortfolioReport(
        headline="",
        companies=[
            CompanyLine(company="Fennimore Hydro Corporation", revenue_change="+80%", gravest_risk=""),
            CompanyLine(company="Nobody Ltd", revenue_change="", gravest_risk=""),
        ],
    )

    assert research._reservations(report, Briefs(briefs=[known]).briefs) == [
        "The change +80% of Fennimore Hydro Corporation is not in its brief.",
        "Nobody Ltd was not researched.",
        "Fennimore Hydro Corporation: Nothing was read.",
    ]


def test_reservations_are_shown_on_the_page_and_in_the_summary() -> None:
    result = checked_brief(brief(figure("123.4"), quote="It may rain."), FENNIMORE, NO_CALLS).model_dump(mode="json")
    run = Activity(agent_type="research_company", status=Status.COMPLETE, result=result, usage={})
    out = io.StringIO()

    Screen(OutputWrapper(out), {UUID(str(run.agent_id)): "fennimore"}).summarize([run])
    engine = Engine(dirs=[str(TEMPLATES)], libraries={"results": results.__name__})
    page = engine.render_to_string("documents/result.html", {"run": run})

    for text in (out.getvalue(), page):
        assert "used none of its tools" in text
        assert "1 quote could not be found in the document." in text
        assert "1 figure could not be found in the document." in text
