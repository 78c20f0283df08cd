"""Every Python block of README and documentation compiles, imports names that exist, and uses defined names.

The blocks of a page are read in order, as if they were one module. Not defined in the page may be the names of
`GIVEN`, which stand for objects of the reader's project.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import re
import symtable
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
GIVEN = {
    "agent_id": "the id of an activity",
    "request": "the request of a view",
    "user": "a user of the project",
}
SETTINGS = {"BASE_DIR", "DATABASES", "DEBUG", "INSTALLED_APPS"}  # where a block continues the project's settings
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
    known = {*GIVEN}
    problems = []
    for number, block in enumerate(blocks(page), 1):
        source = as_module(block)
        if "settings.py" in source.partition("\n")[0]:
            known |= SETTINGS
        undefined = sorted({*undefined_names(source, known)})
        problems += [f"block {number}: {problem}" for problem in [*undefined, *broken_imports(source)]]
    assert problems == []
