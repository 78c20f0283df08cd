"""Sync functions that have an async version, called in an event loop."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from django.core.exceptions import SynchronousOnlyOperation

import django_agentexec
from django_agentexec import (
    Attempt,
    DjangoSession,
    Pipeline,
    Run,
    Task,
    Tracker,
    activity,
    approvals,
    concurrency,
    results,
)
from django_agentexec.budgets import commands as budgets
from django_agentexec.calls import pruning
from django_agentexec.costs import reprice
from django_agentexec.models import Conversation, ConversationQuerySet

OWNERS = [
    *(django_agentexec, activity, approvals, results, budgets, concurrency, pruning, reprice),
    *(Attempt, Conversation, ConversationQuerySet, DjangoSession, Run, Tracker),
]
NOT_GUARDED = {"flush_stream", "finish", "wait_for_end"}  # waits on purpose; internal


def pairs() -> Iterator[tuple[object, str]]:
    """Yield each public sync function that has an async version, with its owner."""
    for owner in OWNERS:
        for name in dir(owner):
            asynchronous = getattr(owner, f"a{name}", None)
            is_async = inspect.iscoroutinefunction(asynchronous) or inspect.isasyncgenfunction(asynchronous)
            function = getattr(owner, name)
            is_own = inspect.isfunction(function) and function.__module__.startswith("django_agentexec")
            if is_async and is_own and name not in NOT_GUARDED:
                yield owner, name


PAIRS = list(pairs())


def test_the_pairs_are_found() -> None:
    assert {name for _, name in PAIRS} >= {
        "enqueue", "get_result", "gather", "spawn", "map", "cancel", "group", "incr", "pause", "set_limit",
        "set_limit_of_period", "prune_calls", "reprice", "append", "import_history", "conversation", "fork", "assign",
    }  # fmt: skip


def test_each_guarded_function_has_an_async_version() -> None:
    missing = []
    for path in Path(django_agentexec.__file__).parent.rglob("*.py"):
        source = path.read_text()
        owners: list[ast.Module | ast.ClassDef] = [ast.parse(source)] if "@blocking" in source else []
        for owner in owners:
            owners += [node for node in owner.body if isinstance(node, ast.ClassDef)]
            asynchronous = {node.name for node in owner.body if isinstance(node, ast.AsyncFunctionDef)}
            missing += [
                f"{path.name}: {node.name}"
                for node in owner.body
                if isinstance(node, ast.FunctionDef)
                and any(isinstance(each, ast.Name) and each.id == "blocking" for each in node.decorator_list)
                and f"a{node.name.lstrip('_')}" not in asynchronous
            ]
    assert missing == []


@pytest.mark.parametrize(("owner", "name"), PAIRS, ids=[f"{getattr(o, '__name__', o)}.{n}" for o, n in PAIRS])
async def test_the_error_names_the_async_version(owner: object, name: str) -> None:
    function = getattr(owner, name)
    required = [
        MagicMock()
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]

    with pytest.raises(SynchronousOnlyOperation, match=rf"{name}\(\) would block .* await a{name}\(\) instead"):
        function(*required)


async def test_methods_that_delegate_name_it_too() -> None:
    with pytest.raises(SynchronousOnlyOperation, match=r"await aenqueue\(\) instead"):
        Task.enqueue(MagicMock(), MagicMock())
    with pytest.raises(SynchronousOnlyOperation, match=r"await arun\(\) instead"):
        Pipeline.run(MagicMock())
