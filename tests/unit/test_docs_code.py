"""The Python blocks of README and documentation are complete: they compile, import and run.

The blocks of a page are read in order, as if they were one module. The names in `GIVEN` stand for objects of the
reader's project and may be used without a definition. Definitions (imports, classes, functions with their decorators,
instances of classes) are executed; statements that would enqueue or wait are compiled only. The tutorial has a test of
its project, `tests/e2e/test_tutorial.py`.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import re
import symtable
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from django_agentexec.tasks import registry

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
GIVEN = {
    "agent_id": "the id of an activity",
    "request": "the request of a view",
    "user": "a user of the project",
}
SETTINGS = {"BASE_DIR", "DATABASES", "DEBUG", "INSTALLED_APPS"}  # where a block continues the project's settings
# Packages that pages import and an environment may lack.
REQUIRED = {"schedules.md": "django_celery_beat", "frameworks.md": "pydantic_ai", "durable.md": "opentelemetry.sdk"}
PROJECTS = ("myapp", "myproject", "desk", "helpdesk")  # packages of the reader's project


def blocks(page: Path) -> list[str]:
    """Return the Python blocks of a page."""
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def undefined_names(source: str, known: set[str]) -> Iterator[str]:
    """Yield the names that a block reads and neither it nor `known` defines, and add those it defines to `known`."""
    table = symtable.symtable(source, "page", "exec")
    known |= {symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    scopes = [table]
    while scopes:
        scope = scopes.pop()
        scopes += scope.get_children()
        for symbol in scope.get_symbols():
            name = symbol.get_name()
            if symbol.is_global() and symbol.is_referenced() and name not in known and not hasattr(builtins, name):
                yield name


def broken_imports(source: str) -> Iterator[str]:
    """Yield the imports of a block that fail, those of the reader's project left aside."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            if node.module.split(".")[0] in PROJECTS:
                continue
            module = importlib.import_module(node.module)
            for alias in node.names:
                if not hasattr(module, alias.name):
                    yield f"from {node.module} import {alias.name}"


def as_module(block: str) -> str:
    """Return the block in a form that compiles: `await` at its top level stands in a function."""
    try:
        ast.parse(block)
        compile(block, "page", "exec")
    except SyntaxError:
        compile(block, "page", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        return re.sub(r"\basync (with|for)\b", r"\1", re.sub(r"\bawait ", "", block))
    return block


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_are_complete(page: Path) -> None:
    if page.name in REQUIRED:
        pytest.importorskip(REQUIRED[page.name])
    known = {*GIVEN}
    problems = []
    for number, block in enumerate(blocks(page), 1):
        source = as_module(block)
        if "settings.py" in source.partition("\n")[0]:
            known |= SETTINGS
        undefined = sorted({*undefined_names(source, known)})
        problems += [f"block {number}: {problem}" for problem in [*undefined, *broken_imports(source)]]
    assert problems == []


def is_definition(statement: ast.stmt, namespace: dict[str, Any]) -> bool:
    """Whether a statement defines something and does nothing else."""
    if isinstance(statement, ast.Import | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return True
    if isinstance(statement, ast.ImportFrom):
        return not statement.level and (statement.module or "").split(".")[0] not in PROJECTS
    if not isinstance(statement, ast.Assign):
        return False
    calls = [node.func for node in ast.walk(statement.value) if isinstance(node, ast.Call)]
    return all(isinstance(call, ast.Name) and isinstance(namespace.get(call.id), type) for call in calls)


def execute(page: Path) -> dict[str, Any]:
    """Execute the definitions of a page, and return its namespace."""
    namespace: dict[str, Any] = {"__name__": f"docs_{page.stem}"}
    for block in blocks(page):
        if block.startswith(("# settings.py", "# myproject/asgi.py")):
            continue
        for statement in ast.parse(as_module(block)).body:
            if is_definition(statement, namespace):
                exec(compile(ast.Module([statement], []), str(page), "exec"), namespace)
    return namespace


@pytest.fixture
def own_tasks() -> Iterator[None]:
    """Begin without tasks, whose names the pages may use, and restore them after the test; forget schedules."""
    before, schedules = list(registry), schedule_names()
    for task in before:
        registry.unregister(task.name)
    yield
    for task in registry.known():
        registry.unregister(task.name)
    for task in before:
        registry.register(task)
    for name in schedule_names() - schedules:
        import_module("django_agentexec.schedules.declarations").forget(name)


def schedule_names() -> set[str]:
    """Return the names of the schedules in code."""
    if not find_spec("django_celery_beat"):
        return set()
    return {each.name for each in import_module("django_agentexec.schedules.declarations").declared()}


RUNNABLE = [page for page in PAGES if page.name not in {"tutorial.md", "admin.md"}]  # the latter registers an admin


@pytest.mark.usefixtures("own_tasks")
@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.name)
def test_definitions_of_a_page_run(page: Path) -> None:
    if page.name in REQUIRED:
        pytest.importorskip(REQUIRED[page.name])
    execute(page)


@pytest.mark.usefixtures("own_tasks", "db")
@pytest.mark.parametrize("page", ["README.md", "docs/testing.md"])
def test_the_tests_of_a_page_pass(page: str) -> None:
    namespace = execute(ROOT / page)
    functions = [value for name, value in namespace.items() if name.startswith("test_")]
    tests = [function for function in functions if {*inspect.signature(function).parameters} <= {"db"}]
    assert tests
    for test in tests:
        test(*inspect.signature(test).parameters)


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
