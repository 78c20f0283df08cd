"""The kinds of the library's documents: reports of companies, and contracts."""

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
    """Return the kind of a document, or None for an uploaded document, whose kind only its owner can choose."""
    if document in REPORTS:
        return "report"
    return "contract" if document in CONTRACTS else None


def label(document: Document) -> str:
    """Return the display name of a document: the company of a report, the title of any other document."""
    return REPORTS.get(document.name, document.title)
