"""Threads and fork handlers: each kind starts in one module, and the documentation lists every thread."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "django_agentexec"
THREADS = {"Thread", "Timer", "start_new_thread"}
STARTS = {"start_daemon_thread", "start_critical_thread"}


@cache
def nodes() -> list[tuple[str, ast.AST]]:
    """Return the calls, keywords, classes and assignments of the package, each with its module."""
    kinds = (ast.Call, ast.keyword, ast.ClassDef, ast.Assign)
    trees = {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}
    return [(module, node) for module, tree in trees.items() for node in ast.walk(tree) if isinstance(node, kinds)]


def name_of(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def users_of(names: set[str]) -> set[str]:
    """Return the modules that call one of these, or derive a class from it."""
    found = set()
    for module, node in nodes():
        used = [node.func] if isinstance(node, ast.Call) else node.bases if isinstance(node, ast.ClassDef) else []
        if names & set(map(name_of, used)):
            found.add(module)
    return found


def test_only_the_background_module_starts_threads() -> None:
    # The guardian of the embedded server is a process without Django.
    assert users_of(THREADS) == {"background.py", "embedded.py"}


def test_only_the_forks_module_registers_handlers_with_the_interpreter() -> None:
    assert users_of({"register_at_fork"}) == {"forks.py"}


def thread_names() -> Iterator[ast.expr]:
    for module, node in nodes():
        match node:
            case ast.Call(func=function, args=[name, *_]) if module != "background.py" and name_of(function) in STARTS:
                yield name
            case ast.Assign(targets=[ast.Name(id="thread_name")], value=name):
                yield name
            case ast.keyword(arg="thread_name_prefix", value=name) if module != "testing.py":
                yield name


def test_the_table_of_threads_is_complete() -> None:
    names = {re.sub(r"\{.*\}", "*", ast.unparse(name).strip("f'")) for name in thread_names()}
    started = {name for name in names if name.startswith("agentexec-")}
    rows = [line for line in (ROOT / "docs" / "internals.md").read_text().splitlines() if line.startswith("| ")]

    assert len(started) > 15
    assert started - {name for row in rows for name in re.findall(r"`(agentexec-[\w*-]+)`", row)} == set()
