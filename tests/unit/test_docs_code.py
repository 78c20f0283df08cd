"""The Python blocks of README and documentation are complete: they compile, import and run.

Definitions (imports, classes, functions with their decorators, instances of classes) are executed; statements that
would enqueue or wait are compiled only. Other tests: of the tutorial's project in tests/e2e/test_tutorial.py, of tests
on pages in tests/integration/test_docs_tests.py, of frameworks.md in tests/integration/runners/test_pydantic_ai.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.docs_code import PAGES, REQUIRED, ROOT, execute, only_tasks_of_pages, problems_of

COMPLETE = [page for page in PAGES if page.name != "frameworks.md"]
RUNNABLE = [page for page in COMPLETE if page.name not in {"tutorial.md", "admin.md"}]  # the latter registers an admin


@pytest.fixture
def own_tasks() -> Iterator[None]:
    """No tasks but those of the page."""
    with only_tasks_of_pages():
        yield


@pytest.mark.parametrize("page", COMPLETE, ids=lambda page: page.name)
def test_python_blocks_are_complete(page: Path) -> None:
    if page.name in REQUIRED:
        pytest.importorskip(REQUIRED[page.name])
    assert problems_of(page) == []


@pytest.mark.usefixtures("own_tasks")
@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.name)
def test_definitions_of_a_page_run(page: Path) -> None:
    if page.name in REQUIRED:
        pytest.importorskip(REQUIRED[page.name])
    execute(page)


@pytest.mark.usefixtures("own_tasks")
def test_the_pipeline_of_the_readme_returns_its_report() -> None:
    namespace = execute(ROOT / "README.md")
    namespace["asyncio"] = _Impatient
    report = namespace["ResearchPipeline"].run(namespace["Company"](name="Acme"))
    assert report.text == "Acme was founded in 1947."


class _Impatient:
    """`asyncio` whose `sleep` returns at once."""

    @staticmethod
    async def sleep(seconds: float) -> None:
        return None
