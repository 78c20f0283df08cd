"""The work of the demo: a research for each report, and a review for each contract."""

from __future__ import annotations

from uuid import UUID

from django_agentexec import enqueue
from example_project.documents.research import PortfolioContext
from example_project.documents.schemas import ContractContext, ResearchContext

REPORTS = (
    ("Fennimore Hydro Corporation", "fennimore-hydro-annual-report.md"),
    ("Marlowe & Pike Grocers plc", "marlowe-pike-quarterly-update.md"),
    ("Sorrel Aviation Leasing DAC", "sorrel-aviation-credit-memo.txt"),
)
CONTRACTS = (
    "master-services-agreement.md",
    "commercial-lease.txt",
    "saas-subscription-and-data-processing.md",
)


def enqueue_all() -> dict[UUID, str]:
    """Enqueue everything; return the document of each activity, by its id."""
    handle = enqueue("portfolio_pipeline", PortfolioContext(), metadata={"source": "demo"})
    subjects: dict[UUID, str] = {handle.agent_id: "all companies, compared"}
    for company, document in REPORTS:
        research = ResearchContext(company=company, document=document)
        handle = enqueue("research_company", research, metadata={"source": "demo"})
        subjects[handle.agent_id] = document
    for document in CONTRACTS:
        handle = enqueue("review_contract", ContractContext(document=document), metadata={"source": "demo"})
        subjects[handle.agent_id] = document
    return subjects
