"""The Python blocks of README and documentation, in order as if those of a page were one module.

The names in `GIVEN` stand for objects of the reader's project and may be used without a definition.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import re
import symtable
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

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
REQUIRED = {"schedules.md": "django_celery_beat", "durable.md": "opentelemetry.sdk"}
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


def problems_of(page: Path) -> list[str]:
    """Return the names that a page uses without a definition, and its imports that fail."""
    known = {*GIVEN}
    problems = []
    for number, block in enumerate(blocks(page), 1):
        source = as_module(block)
        if "settings.py" in source.partition("\n")[0]:
            known |= SETTINGS
        undefined = sorted({*undefined_names(source, known)})
        problems += [f"block {number}: {problem}" for problem in [*undefined, *broken_imports(source)]]
    return problems


def is_definition(statement: ast.stmt, namespace: dict[str, Any]) -> bool:
    """Return whether a statement defines something and does nothing else."""
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


@contextmanager
def only_tasks_of_pages() -> Iterator[None]:
    """Begin without tasks, whose names the pages may use, and restore them after the block; forget schedules."""
    before, schedules = list(registry), schedule_names()
    for task in before:
        registry.unregister(task.name)
    yield
    for task in registry.known():
        registry.unregister(task.name)
    for task in before:
        registry.register(task)
    for name in schedule_names() - schedules:
        from django_agentexec.schedules.declarations import forget

        forget(name)


def schedule_names() -> set[str]:
    """Return the names of the schedules in code."""
    if not find_spec("django_celery_beat"):
        return set()
    from django_agentexec.schedules.declarations import declared

    return {each.name for each in declared()}
