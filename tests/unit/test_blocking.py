"""Sync functions that have an async version, called in an event loop."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from unittest.mock import MagicMock

import pytest
from django.core.exceptions import SynchronousOnlyOperation

import django_agentexec
from django_agentexec import Attempt, Pipeline, Run, Task, Tracker, activity, results

OWNERS = [django_agentexec, activity, results, Attempt, Run, Tracker]
NOT_GUARDED = {"flush_stream", "finish", "wait_for_end"}  # waits on purpose; internal


def pairs() -> Iterator[tuple[object, str]]:
    """Yield each public sync function that has an async version, with its owner."""
    for owner in OWNERS:
        for name in dir(owner):
            asynchronous = getattr(owner, f"a{name}", None)
            is_async = inspect.iscoroutinefunction(asynchronous) or inspect.isasyncgenfunction(asynchronous)
            if is_async and inspect.isfunction(getattr(owner, name)) and name not in NOT_GUARDED:
                yield owner, name


PAIRS = list(pairs())


def test_the_pairs_are_found() -> None:
    assert {name for _, name in PAIRS} >= {"enqueue", "get_result", "gather", "spawn", "map", "cancel", "group", "incr"}


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
