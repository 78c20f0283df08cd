"""The example's agents, driven by the SDK with the offline model over the real documents."""

from __future__ import annotations

from typing import Any

import pytest
from agents import Agent, MaxTurnsExceeded, ModelBehaviorError, Runner, Tool, function_tool
from agents.run import RunConfig
from django.core.exceptions import ImproperlyConfigured

from example_project.documents import library
from example_project.documents.assistants import company_analyst, contract_reviewer
from example_project.documents.model import model_choice
from example_project.documents.offline import OfflineModel
from example_project.documents.schemas import CompanyBrief, ContractReview
from example_project.documents.shelf import Shelf

MODEL = OfflineModel(pause=(0, 0))
SILENT = RunConfig(tracing_disabled=True)
REPORTS = {
    "Fennimore Hydro Corporation": "fennimore-hydro-annual-report.md",
    "Marlowe & Pike Grocers plc": "marlowe-pike-quarterly-update.md",
    "Sorrel Aviation Leasing DAC": "sorrel-aviation-credit-memo.txt",
}
CONTRACTS = [
    "commercial-lease.txt",
    "master-services-agreement.md",
    "saas-subscription-and-data-processing.md",
]

Reports = list[tuple[str, int]]


@pytest.fixture
def reports() -> Reports:
    return []


@pytest.fixture
def report_status(reports: Reports) -> Tool:
    @function_tool
    def report_status(message: str, percentage: int) -> str:
        """Report progress."""
        reports.append((message, percentage))
        return "The status was saved."

    return report_status


async def research(company: str, report_status: Tool) -> CompanyBrief:
    agent = company_analyst(MODEL, report_status, "")
    request = f"Company: {company}\nDocument: {REPORTS[company]}"
    result = Runner.run_streamed(agent, request, context=Shelf(), max_turns=40, run_config=SILENT)
    async for _ in result.stream_events():
        pass
    return result.final_output_as(CompanyBrief, raise_if_incorrect_type=True)


async def review(document: str, report_status: Tool) -> ContractReview:
    agent = contract_reviewer(MODEL, report_status, "")
    result = await Runner.run(agent, f"Document: {document}", context=Shelf(), max_turns=40, run_config=SILENT)
    return result.final_output_as(ContractReview, raise_if_incorrect_type=True)


@pytest.mark.parametrize(
    ("company", "figure"),
    [
        ("Fennimore Hydro Corporation", ("Operating income", "106.7", "83.8", "+27.3%")),
        ("Marlowe & Pike Grocers plc", ("Adjusted operating profit", "17.8", "21.3", "-16.4%")),
        ("Sorrel Aviation Leasing DAC", ("Lease revenue", "118.4", "109.2", "+8.4%")),
    ],
)
async def test_research_finds_figures_risks_and_outlook(
    company: str, figure: tuple[str, ...], report_status: Tool
) -> None:
    brief = await research(company, report_status)

    assert figure in [tuple(found.model_dump().values()) for found in brief.figures]
    assert brief.period.endswith("2026")
    assert "million" in brief.unit
    assert len(brief.risks) == 6
    assert brief.outlook.startswith("We ")


async def test_research_quotes_the_document_word_for_word(report_status: Tool) -> None:
    for company, document in REPORTS.items():
        brief = await research(company, report_status)
        assert [risk.quote for risk in brief.risks if not Shelf().get(document).contains(risk.quote)] == []


async def test_an_agent_reports_progress_that_only_grows(report_status: Tool, reports: Reports) -> None:
    await research("Fennimore Hydro Corporation", report_status)

    percentages = [percentage for _, percentage in reports]
    assert len(percentages) >= 5
    assert percentages == sorted(percentages)
    assert ("Reading page 1 of 4", 10) in reports


@pytest.mark.parametrize(
    ("document", "parties"),
    [
        (
            "commercial-lease.txt",
            {
                "Landlord": "Bexley Wharf Properties LLC",
                "Tenant": "Tamarind Kitchens, Inc.",
                "Guarantor": "Priya Raghunathan",
            },
        ),
        (
            "master-services-agreement.md",
            {"Customer": "Northgate Freight Holdings plc", "Supplier": "Calder Systems Limited"},
        ),
        (
            "saas-subscription-and-data-processing.md",
            {"Provider": "Lumen Ledger GmbH", "Customer": "Vardal Clinics AB"},
        ),
    ],
)
async def test_review_finds_the_parties(document: str, parties: dict[str, str], report_status: Tool) -> None:
    found = await review(document, report_status)

    assert {party.role: party.name for party in found.parties} == parties


async def test_review_finds_dates_and_sums(report_status: Tool) -> None:
    found = await review("master-services-agreement.md", report_status)

    dates = {date.meaning: date.date for date in found.dates}
    assert dates["signed"] == "2025-03-14"
    assert dates["last day for notice"] == "2027-10-03"
    assert dates["end of term"] == "2028-03-31"
    assert {"£1,840,000", "£295,000"} <= {amount.value for amount in found.amounts}


async def test_review_finds_risky_clauses_the_serious_ones_first(report_status: Tool) -> None:
    found = await review("master-services-agreement.md", report_status)

    clauses = {(risk.kind, risk.clause) for risk in found.risky_clauses}
    assert {
        ("automatic renewal", "3.2"),
        ("broad indemnity", "9.2"),
        ("low liability cap", "10.2"),
        ("change of control", "12.1"),
    } <= clauses
    severities = [["high", "medium", "low"].index(risk.severity) for risk in found.risky_clauses]
    assert severities == sorted(severities)


@pytest.mark.parametrize("document", CONTRACTS)
async def test_review_quotes_the_contract_word_for_word(document: str, report_status: Tool) -> None:
    found = await review(document, report_status)

    quotes = [item.quote for item in (*found.dates, *found.amounts, *found.risky_clauses)]
    assert [quote for quote in quotes if not Shelf().get(document).contains(quote)] == []


async def test_the_model_plays_every_run_alike_and_counts_tokens(report_status: Tool) -> None:
    agent = contract_reviewer(MODEL, report_status, "")
    runs = [
        await Runner.run(agent, "Document: commercial-lease.txt", context=Shelf(), max_turns=40, run_config=SILENT)
        for _ in range(2)
    ]

    first, second = (run.context_wrapper.usage for run in runs)
    assert runs[0].final_output == runs[1].final_output
    assert (first.requests, first.input_tokens) == (second.requests, second.input_tokens)
    assert first.input_tokens > first.input_tokens_details.cached_tokens > 0
    assert first.total_tokens == first.input_tokens + first.output_tokens


async def test_the_model_answers_with_what_it_has_when_it_is_told_to(report_status: Tool) -> None:
    agent = contract_reviewer(MODEL, report_status, "")
    with pytest.raises(MaxTurnsExceeded) as interrupted:
        await Runner.run(agent, "Document: commercial-lease.txt", context=Shelf(), max_turns=4, run_config=SILENT)
    assert interrupted.value.run_data is not None
    history: list[Any] = [
        *[{"role": "user", "content": "Document: commercial-lease.txt"}],
        *[item.to_input_item() for item in interrupted.value.run_data.new_items],
        {"role": "user", "content": "Give your final answer now."},
    ]

    result = await Runner.run(agent, history, max_turns=1, run_config=SILENT)

    assert isinstance(result.final_output, ContractReview)
    assert result.final_output.parties


async def test_the_model_refuses_what_it_cannot_play() -> None:
    agent = Agent(name="Poet", model=MODEL)

    with pytest.raises(ModelBehaviorError, match="OPENAI_API_KEY"):
        await Runner.run(agent, "Write a poem.", run_config=SILENT)


def test_every_document_has_two_to_ten_pages() -> None:
    assert len(library.all_documents()) == 6
    assert all(2 <= len(document.pages) <= 10 for document in library.all_documents())


def test_a_wrong_name_is_answered_with_the_closest() -> None:
    with pytest.raises(library.DocumentNotFound, match=r"commercial-lease\.txt"):
        Shelf().get("comercial-lease")


@pytest.mark.parametrize(
    ("environment", "kind", "name"),
    [
        ({}, "offline", ""),
        ({"OPENAI_API_KEY": "k"}, "responses", ""),
        ({"OPENAI_API_KEY": "k", "OPENAI_API": "chat", "AGENTEXEC_DEMO_MODEL": "m"}, "chat", "m"),
        ({"OPENAI_BASE_URL": "http://localhost:1/v1", "AGENTEXEC_DEMO_MODEL": "m"}, "chat", "m"),
    ],
)
def test_the_environment_chooses_the_model(
    environment: dict[str, str], kind: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_environment(monkeypatch, environment)

    choice = model_choice()

    assert (choice.kind, choice.name) == (kind, name)


@pytest.mark.parametrize(
    "environment",
    [{"OPENAI_BASE_URL": "http://localhost:1/v1"}, {"OPENAI_API_KEY": "k", "OPENAI_API": "telepathy"}],
)
def test_a_contradictory_environment_is_refused(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, environment)

    with pytest.raises(ImproperlyConfigured, match="OPENAI"):
        model_choice()


def set_environment(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_API", "AGENTEXEC_DEMO_MODEL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
