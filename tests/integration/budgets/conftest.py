"""Fixtures of the tests of budgets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from django_agentexec.budgets.applicable import table
from django_agentexec.testing import memory_queue
from tests.e2e.journal import Journal
from tests.support.budget_rows import set_price


@pytest.fixture(autouse=True)
def queue() -> Iterator[None]:
    """Use the queue in memory, and read budgets again."""
    table.reset()
    with memory_queue():
        yield
    table.reset()


@pytest.fixture(autouse=True)
def price(db: None) -> None:
    """A call of the model `paid` costs 0.03 dollars."""
    set_price()


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """A journal for this test's handlers."""
    return Journal(tmp_path)
