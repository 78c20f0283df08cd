"""The example of several agents on one question, with the offline model over the real documents."""

from __future__ import annotations

from io import StringIO

import pytest

from django_agentexec import Status, get_result
from django_agentexec.testing import drain, memory_queue
from example_project.documents import agents as example
from example_project.documents import research
from example_project.documents.management.commands.demo import Command
from example_project.documents.offline import OfflineModel
from example_project.documents.research import PortfolioContext, PortfolioPipeline
from tests.support.activity_rows import messages, row

pytestmark = pytest.mark.django_db(transaction=True)


def test_companies_are_found_researched_in_parallel_and_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (example, research):
        monkeypatch.setattr(module, "build_model", lambda: OfflineModel(pause=(0, 0)))
    with memory_queue():
        handle = PortfolioPipeline.enqueue(PortfolioContext(), metadata={"source": "test"})
        drain()

    report = get_result(handle, timeout=0)
    assert [line.company for line in report.companies] == [
        "Fennimore Hydro Corporation",
        "Marlowe & Pike Grocers plc",
        "Sorrel Aviation Leasing DAC",
    ]
    assert "revenue grew most at" in report.headline
    children = list(row(handle.agent_id).children.all())
    assert {(child.agent_type, child.status) for child in children} == {("research_company", Status.COMPLETE)}
    assert len(children) == 3
    assert "Waiting for 3 activities." in messages(handle.agent_id)


class Demo(Command):
    """The demo without its processes."""

    def run(self, timeout: float) -> None:
        """Enqueue everything and show the progress."""
        self._run(timeout, [], approves=False)


def test_the_demo_s_timeout_ends_with_the_summary() -> None:
    out = StringIO()
    with memory_queue(), pytest.raises(TimeoutError, match="--timeout sets a longer limit"):
        Demo(stdout=out).run(timeout=0.0)

    _, summary = out.getvalue().split("\ndocument ")
    assert summary.count("queued") == 8  # of six documents, of their comparison, and of the letter
