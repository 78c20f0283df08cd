"""Enqueue: validate everything, write the rows in the caller's transaction, push their ids after the commit."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from asgiref.sync import sync_to_async
from django.db import IntegrityError
from django.utils import timezone
from pydantic import BaseModel

from ..activity.actor import acting_user_id
from ..activity.current import current_attempt
from ..activity.store import database, insert
from ..bulk_sql import clone_row
from ..conf import conf
from ..deprecation import deprecated_name
from ..dispatch.push import push_on_commit
from ..ids import uuid7
from ..models import Activity, Status
from ..registry import get_task
from .options import BulkOptions, EnqueueOptions, RowOptions, check_names
from .run import Run

if TYPE_CHECKING:
    from .definition import AnyTask, Task
    from .run import ActivityHandle as ActivityHandle
else:

    def __getattr__(name: str) -> Any:
        return deprecated_name(__name__, name, {"ActivityHandle": Run})


C = TypeVar("C", bound=BaseModel)
T = TypeVar("T")

definition_of = get_task


@overload
def enqueue(task: Task[C, ..., Any, T], context: C, **options: Unpack[EnqueueOptions]) -> Run[T]: ...
@overload
def enqueue(task: str, context: BaseModel, **options: Unpack[EnqueueOptions]) -> Run[Any]: ...
def enqueue(task: str | AnyTask, context: BaseModel, **options: Unpack[EnqueueOptions]) -> Run[Any]:
    """Enqueue `task` (the task or its name) with `context`, and return its handle at once.

    The row is written in the caller's transaction, if there is one: a rollback leaves nothing, and workers
    see the activity after the commit. If Redis is unavailable, the activity waits in the database.

    Options: `priority` (a `Priority` or its name, such as `"high"`), `metadata` (a JSON-able dictionary to filter by),
    `delay` (seconds or timedelta) or `run_after` (aware datetime), `queue`, and `idempotency_key`: a second enqueue
    of the same task with the same key returns the existing activity.

    Raises `UnknownTask`, `InvalidContext` (`ContextTooLarge`, or for a context that a worker would load with other
    values) or `InvalidOption`, with nothing written.
    """
    check_names("enqueue", options, EnqueueOptions)
    definition = get_task(task)
    checked = RowOptions.read(definition, options)
    (activity,) = build_rows(definition, [context], checked)
    if checked.idempotency_key is None:
        _insert([activity])
        return handle_of(activity)
    first = _find(activity)
    if first is None:
        try:
            _insert([activity])
        except IntegrityError:
            first = _find(activity)
            if first is None:
                raise
    return handle_of(first, created=False) if first else handle_of(activity)


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
def enqueue_many(task: str | AnyTask, contexts: Sequence[BaseModel], **options: Unpack[BulkOptions]) -> list[Run[Any]]:
    """Enqueue `task` once per context, in this order; rows and ids are written in bulk.

    Takes the options of `enqueue` except `idempotency_key`; all checks precede the first write.
    """
    check_names("enqueue_many", options, BulkOptions)
    activities = new_rows(get_task(task), contexts, **options)
    if activities:
        _insert(activities)
    return [handle_of(activity) for activity in activities]


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


def new_rows(definition: AnyTask, contexts: Sequence[BaseModel], **options: Unpack[BulkOptions]) -> list[Activity]:
    """Return the rows of new activities, validated and not yet written. Raises as `enqueue` does."""
    return build_rows(definition, contexts, RowOptions.read(definition, options))


def build_rows(definition: AnyTask, contexts: Sequence[BaseModel], options: RowOptions) -> list[Activity]:
    """Return the rows of new activities, not yet written. Raises `InvalidContext`."""
    attempt, now = current_attempt(), timezone.now()
    shared: dict[str, Any] = {
        "agent_type": definition.name,
        "metadata": options.metadata,
        "priority": options.priority,
        "run_after": options.run_after,
        "queue": options.queue,
        "idempotency_key": options.idempotency_key,
        "max_retries": definition.max_retries,
        "parent_id": attempt.agent_id if attempt else None,
        "enqueued_by": attempt.enqueued_by if attempt else acting_user_id(),
        "created_at": now,
        "updated_at": now,
        "usage": {},
    }
    template, rows = clone_row(_blank(), **shared), []
    for context in contexts:
        stored, lock_key = definition.prepare(context, options.metadata)
        rows.append(clone_row(template, agent_id=uuid7(), context=stored, lock_key=lock_key))
    return rows


@cache
def _blank() -> Activity:
    """Return a new row with its defaults, to be cloned."""
    return Activity()


def _insert(activities: list[Activity]) -> None:
    insert(activities, conf.ACTIVITY_MESSAGE_CREATE, push_on_commit)


def _find(activity: Activity) -> Activity | None:
    same = Activity.objects.using(database()).filter(
        agent_type=activity.agent_type, idempotency_key=activity.idempotency_key
    )
    return same.only("agent_id", "agent_type", "status").first()


def handle_of(activity: Activity, *, created: bool = True) -> Run[Any]:
    """Return the handle of a row."""
    return Run(activity.agent_id, activity.agent_type, created, Status(activity.status))
