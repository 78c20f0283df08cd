"""The public names of the package, as type checkers read them in its `__init__.py`."""

from __future__ import annotations

import ast
from pathlib import Path

import django_agentexec

DEPRECATED = {"ActivityHandle": "Run", "TaskDefinition": "Task"}
"""Deprecated public names, with what replaces them."""


def public_names() -> set[str]:
    """Return the names of `django_agentexec.__all__`."""
    (names,) = (node.value for node in _assignments() if ast.unparse(node.targets[0]) == "__all__")
    return set(ast.literal_eval(names))


def homes() -> dict[str, str]:
    """Return the module that each public name is imported from, relative to the package."""
    public = public_names()
    return {
        alias.name: node.module or alias.name
        for node in ast.walk(_source())
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
        if alias.name in public
    }


def _assignments() -> list[ast.Assign]:
    return [node for node in ast.walk(_source()) if isinstance(node, ast.Assign)]


def _source() -> ast.Module:
    return ast.parse(Path(django_agentexec.__file__).read_text(encoding="utf-8"))
