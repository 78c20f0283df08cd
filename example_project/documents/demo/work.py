"""The activities of the demo (research of reports, reviews of contracts, a letter), and the price of its model."""

from __future__ import annotations

from datetime import date
from uuid import UUID

from django_agentexec.models import ModelPrice
from example_project.documents.catalogue import CONTRACTS, REPORTS
from example_project.documents.shelf import Shelf
from example_project.documents.start import compare_companies, start, write_letter

LEASE, RECIPIENT = "commercial-lease.txt", "the landlord"


def set_offline_price() -> None:
    """Give the offline model the price of a small real one, so that the pages show costs."""
    price = {"input_price": 2, "cached_price": 1, "output_price": 8}  # US dollars per million tokens
    ModelPrice.objects.get_or_create(pattern="OfflineModel", valid_from=date(2020, 1, 1), defaults=price)


def enqueue_all(owner: str) -> dict[UUID, str]:
    """Enqueue all activities for the user with the name `owner`; return the subject of each, by its id."""
    shelf = Shelf(owner)
    started = {compare_companies(owner).agent_id: "all companies, compared"}
    started |= {start(owner, shelf.get(name), "report").agent_id: name for name in REPORTS}
    started |= {start(owner, shelf.get(name), "contract").agent_id: name for name in CONTRACTS}
    return started | {write_letter(owner, shelf.get(LEASE), RECIPIENT).agent_id: f"letter to {RECIPIENT}"}
