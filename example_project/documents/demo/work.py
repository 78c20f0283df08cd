"""The work of the demo: a research for each report, and a review for each contract."""

from __future__ import annotations

from uuid import UUID

from example_project.documents.catalogue import CONTRACTS, REPORTS
from example_project.documents.shelf import Shelf
from example_project.documents.start import start


def enqueue_all(owner: str) -> dict[UUID, str]:
    """Enqueue everything for the user called `owner`; return the document of each activity, by its id."""
    shelf = Shelf(owner)
    started = {start(owner, shelf.get(name), "report").agent_id: name for name in REPORTS}
    return started | {start(owner, shelf.get(name), "contract").agent_id: name for name in CONTRACTS}
