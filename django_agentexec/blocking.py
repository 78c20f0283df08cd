"""A guard for sync functions that have an async version."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any, TypeVar, cast

from asgiref.sync import sync_to_async
from django.utils.asyncio import async_unsafe

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


def blocking(function: F) -> F:
    """Reject calls of `function` in an event loop, with an error that names its async version.

    Without this guard, the first query raises Django's error, which recommends a thread.
    """
    name = function.__name__
    message = f"{name}() would block the event loop; await a{name}() instead."
    guarded: F = async_unsafe(message)(function)
    return guarded


async def asynchronous(make: Callable[[], Iterator[T]]) -> AsyncIterator[T]:
    """Yield the items of the iterator that `make` returns, each made in a thread; for async versions of generators."""
    items, end = await sync_to_async(make)(), object()
    step: Callable[[], object] = partial(next, items, end)
    while (item := await sync_to_async(step)()) is not end:
        yield cast("T", item)
