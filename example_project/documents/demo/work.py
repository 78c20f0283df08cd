"""The demo's activities: a research for each report, a review for each contract, and a letter."""

from __future__ import annotations

from uuid import UUID

from example_project.documents.catalogue import CONTRACTS, REPORTS
from example_project.documents.shelf import Shelf
from example_project.documents.start import compare_companies, start, write_letter

LEASE, RECIPIENT = "commercial-lease.txt", "the landlord"


def enqueue_all(owner: str) -> dict[UUID, str]:
    """Enqueue all activities for the user with the name `owner`; return the subject of each, by its id."""
    shelf = Shelf(owner)
    started = {compare_companies(owner).agent_id: "all companies, compared"}
    started |= {start(owner, shelf.get(name), "report").agent_id: name for name in REPORTS}
    started |= {start(owner, shelf.get(name), "contract").agent_id: name for name in CONTRACTS}
    return started | {write_letter(owner, shelf.get(LEASE), RECIPIENT).agent_id: f"letter to {RECIPIENT}"}
