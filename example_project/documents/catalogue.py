"""What the library's documents are: reports of companies, or contracts."""

from __future__ import annotations

from typing import Literal

from .library import Document

Kind = Literal["report", "contract"]

REPORTS = {
    "fennimore-hydro-annual-report.md": "Fennimore Hydro Corporation",
    "marlowe-pike-quarterly-update.md": "Marlowe & Pike Grocers plc",
    "sorrel-aviation-credit-memo.txt": "Sorrel Aviation Leasing DAC",
}
CONTRACTS = (
    "master-services-agreement.md",
    "commercial-lease.txt",
    "saas-subscription-and-data-processing.md",
)
"""The order of the demo: the longest first."""


def kind_of(document: str) -> Kind | None:
    """Return what a document is, or None for an uploaded one, of which only its owner knows."""
    if document in REPORTS:
        return "report"
    return "contract" if document in CONTRACTS else None


def label(document: Document) -> str:
    """Return what people call a document: a report by its company, another one by its title."""
    return REPORTS.get(document.name, document.title)
