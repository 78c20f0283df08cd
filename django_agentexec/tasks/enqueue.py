"""`enqueue` and `enqueue_many`: the methods of `Task`, for a task or its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from asgiref.sync import sync_to_async
from pydantic import BaseModel

from ..blocking import blocking
from ..deprecation import deprecated_name
from ..registry import get_task
from .definition import AnyTask, Task
from .options import BulkOptions, EnqueueOptions
from .run import Run

C = TypeVar("C", bound=BaseModel)
T = TypeVar("T")

if TYPE_CHECKING:
    from .run import ActivityHandle as ActivityHandle
else:

    def __getattr__(name: str) -> Any:
        return deprecated_name(__name__, name, {"ActivityHandle": Run})


@overload
def enqueue(task: Task[C, ..., Any, T], context: C, **options: Unpack[EnqueueOptions]) -> Run[T]: ...
@overload
def enqueue(task: str, context: BaseModel, **options: Unpack[EnqueueOptions]) -> Run[Any]: ...
@blocking
def enqueue(task: str | AnyTask, context: BaseModel, **options: Unpack[EnqueueOptions]) -> Run[Any]:
    """Enqueue `task` (the task or its name) with `context`, and return its handle at once.

    The row is written in the caller's transaction, if there is one: a rollback leaves nothing, and workers
    see the activity after the commit. If Redis is unavailable, the activity waits in the database.

    Options: `priority` (a `Priority` or its name, such as `"high"`), `metadata` (a JSON-able dictionary to filter by),
    `delay` (seconds or timedelta) or `run_after` (aware datetime), `queue`, `conversation` (a session id, a
    `Conversation` or a `DjangoSession`: the activity is a turn of it, and its turns run one after another), and
    `idempotency_key`: a second enqueue of the same task with the same key returns the existing activity.

    Raises `UnknownTask`, `InvalidContext` (`ContextTooLarge`, or for a context that a worker would load with other
    values) or `InvalidOption`, with nothing written.
    """
    return get_task(task).enqueue(context, **options)


@overload
async def aenqueue(task: Task[C, ..., Any, T], context: C, **options: Unpack[EnqueueOptions]) -> Run[T]: ...
@overload
async def aenqueue(task: str, context: BaseModel, **options: Unpack[EnqueueOptions]) -> Run[Any]: ...
async def aenqueue(task: str | AnyTask, context: BaseModel, **options: Unpack[EnqueueOptions]) -> Run[Any]:
    """Async version of `enqueue`."""
    return await sync_to_async(enqueue)(task, context, **options)  # type: ignore[arg-type]  # one of the overloads


@overload
def enqueue_many(task: Task[C, ..., Any, T], contexts: Sequence[C], **options: Unpack[BulkOptions]) -> list[Run[T]]: ...
@overload
def enqueue_many(task: str, contexts: Sequence[BaseModel], **options: Unpack[BulkOptions]) -> list[Run[Any]]: ...
@blocking
def enqueue_many(task: str | AnyTask, contexts: Sequence[BaseModel], **options: Unpack[BulkOptions]) -> list[Run[Any]]:
    """Enqueue `task` once per context, in this order; rows and ids are written in bulk.

    Takes the options of `enqueue` except `idempotency_key`; all checks precede the first write.
    """
    return get_task(task).enqueue_many(contexts, **options)


@overload
async def aenqueue_many(
    task: Task[C, ..., Any, T], contexts: Sequence[C], **options: Unpack[BulkOptions]
) -> list[Run[T]]: ...
@overload
async def aenqueue_many(task: str, contexts: Sequence[BaseModel], **options: Unpack[BulkOptions]) -> list[Run[Any]]: ...
async def aenqueue_many(
    task: str | AnyTask, contexts: Sequence[BaseModel], **options: Unpack[BulkOptions]
) -> list[Run[Any]]:
    """Async version of `enqueue_many`."""
    return await sync_to_async(enqueue_many)(task, contexts, **options)  # type: ignore[arg-type]  # one of the overloads
