"""Functions that create and change single activities, each with an async version.

Writes of a running attempt go through its worker's committer, under its fence. All other writes are applied at once,
in the caller's transaction if there is one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db import transaction
from pydantic import BaseModel

from ..blocking import blocking
from ..conf import conf
from ..current import OwningAttempt, current_attempt
from ..dispatch.push import push_on_commit, stop_on_commit
from ..exceptions import ActivityNotFound, InvalidOption, ResultError
from ..ids import uuid7
from ..models import Activity
from ..money import storable
from ..registry import registry
from ..validation import (
    MAX_NAME,
    checked_message,
    is_storable,
    json_result,
    storable_text,
    validate_id,
    validate_metadata,
    validate_percentage,
    validate_usage,
)
from .rerun import Rerun, Retry, reset_steps
from .store import apply_one, database, insert, write_and_wait
from .transitions import AddUsage, Cancel, Complete, Fail, Operation, OwnedOperation, Progress


@blocking
def create(
    agent_type: str,
    message: str | None = None,
    *,
    context: BaseModel | Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    agent_id: UUID | None = None,
) -> UUID:
    """Create an activity that your code drives itself, outside of any queue, and return its id.

    It is `queued` until the first `update`, and ends with a call of `complete`, `error` or `cancel`. To have a task
    executed by the workers, use `enqueue` instead. Raises `InvalidOption` for values that cannot be stored.
    """
    if not 1 <= len(agent_type) <= MAX_NAME or not is_storable(agent_type):
        raise InvalidOption(f"The agent type {agent_type!r} is invalid: give 1 to {MAX_NAME} characters without NUL.")
    try:
        content = json_result(context or {})
    except ResultError as error:
        raise InvalidOption(f"The context of {agent_type!r} cannot be stored: {error}") from error
    text = conf.ACTIVITY_MESSAGE_CREATE if message is None else storable_text(checked_message(message))
    activity = Activity(
        agent_id=agent_id or uuid7(),
        agent_type=agent_type,
        context=content,
        metadata=validate_metadata(metadata),
        queue="",
    )
    insert([activity], text)
    return activity.agent_id


async def acreate(
    agent_type: str,
    message: str | None = None,
    *,
    context: BaseModel | Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    agent_id: UUID | None = None,
) -> UUID:
    """Async version of `create`."""
    return await sync_to_async(create)(agent_type, message, context=context, metadata=metadata, agent_id=agent_id)


@blocking
def update(agent_id: UUID, message: str, percentage: float | None = None) -> None:
    """Log `message`, and set the progress if a percentage (0 to 100) is given; it may be lower than before.

    Raises `InvalidOption` for a percentage out of range and for a message that is empty, no text, or longer than
    `MAX_MESSAGE_LENGTH`, `InvalidTransition` if the activity has ended or waits in a queue, `StaleAttempt` if the
    calling attempt no longer owns it, `ActivityNotFound`.
    """
    _write(_progress(agent_id, message, percentage))


async def aupdate(agent_id: UUID, message: str, percentage: float | None = None) -> None:
    """Async version of `update`; returns when the change is committed."""
    await _awrite(_progress(agent_id, message, percentage))


def update_soon(attempt: OwningAttempt, message: str) -> None:
    """Queue a log line of a running attempt; later writes of this attempt are committed with it or after it."""
    attempt.write(replace(_progress(attempt.agent_id, message, None), may_wait=True))


@blocking
def add_usage(agent_id: UUID, usage: Mapping[str, int], cost: Decimal | None = None) -> None:
    """Add token counts, such as `{"input_tokens": 120, "output_tokens": 80}`, to the activity's usage.

    `cost` is that of these tokens in US dollars, if it is known. Raises `InvalidOption` for impossible values.
    """
    _write(_usage(agent_id, usage, cost))


async def aadd_usage(agent_id: UUID, usage: Mapping[str, int], cost: Decimal | None = None) -> None:
    """Async version of `add_usage`."""
    await _awrite(_usage(agent_id, usage, cost))


@blocking
def complete(agent_id: UUID, message: str | None = None, *, result: Any = None) -> None:
    """End the activity as `complete`, and stop its handler if a worker runs it.

    `result` is a JSON value or a Pydantic model; anything else raises `ResultError`.
    """
    _end(Complete(agent_id=validate_id(agent_id), message=_optional_message(message), result=json_result(result)))


async def acomplete(agent_id: UUID, message: str | None = None, *, result: Any = None) -> None:
    """Async version of `complete`."""
    await sync_to_async(complete)(agent_id, message, result=result)


@blocking
def error(agent_id: UUID, message: str, *, traceback: str = "") -> None:
    """End the activity as `error`, and stop its handler if a worker runs it.

    `message` is the reason, visible to all users who may view the activity.
    """
    # Truncated instead of refused: an activity must not stay active because of its error's length.
    text = str(message)[: conf.MAX_MESSAGE_LENGTH]
    _end(Fail(agent_id=validate_id(agent_id), error=text, public_error=text, traceback=traceback))


async def aerror(agent_id: UUID, message: str, *, traceback: str = "") -> None:
    """Async version of `error`."""
    await sync_to_async(error)(agent_id, message, traceback=traceback)


@blocking
def cancel(agent_id: UUID, message: str | None = None) -> None:
    """End the activity as `canceled`, at once and permanently, and stop its handler if a worker runs it.

    Raises `InvalidTransition` if it has already ended, `ActivityNotFound`.
    """
    _end(Cancel(agent_id=validate_id(agent_id), message=_optional_message(message)))


async def acancel(agent_id: UUID, message: str | None = None) -> None:
    """Async version of `cancel`."""
    await sync_to_async(cancel)(agent_id, message)


@blocking
def retry(
    agent_id: UUID,
    *,
    from_step: str | None = None,
    from_scratch: bool = False,
    fresh: bool = False,
    context: BaseModel | Mapping[str, Any] | None = None,
) -> None:
    """Queue an activity in `error` or `canceled` again, under the same id.

    Finished steps of a pipeline and finished children are kept. Failed and canceled children, including permanently
    failed children, run again when the activity spawns them. `from_step` repeats a pipeline from that step, with new
    children, `from_scratch` repeats all of it; both also accept a `complete` activity. `context` replaces the stored
    context: a corrected model or its values as a dictionary, for example if a deploy has changed the model since the
    activity was enqueued.

    Recorded calls of agents are replayed. With `fresh` they are set aside and made again; so are the calls of the steps
    that `from_step` or `from_scratch` repeats.

    Raises `InvalidTransition` in any other state, and for a child whose parent has failed or was canceled (retry the
    parent), `InvalidOption` for a step that has not started, `InvalidContext` for a context that does not fit the task,
    `UnknownTask`, `ActivityNotFound`.
    """
    if from_step is not None and from_scratch:
        raise InvalidOption("Give either from_step or from_scratch, not both.")
    agent_id, is_rerun = validate_id(agent_id), from_scratch or from_step is not None
    changes = {} if context is None else _prepared(agent_id, context)
    operation_class, fresh = Rerun if is_rerun else Retry, fresh or from_scratch
    with transaction.atomic(using=database()):
        row = apply_one(operation_class(agent_id=agent_id, fresh=fresh, **changes))
        if is_rerun:
            reset_steps(agent_id, from_step)
        push_on_commit([row], requeue_running=True)


async def aretry(
    agent_id: UUID,
    *,
    from_step: str | None = None,
    from_scratch: bool = False,
    fresh: bool = False,
    context: BaseModel | Mapping[str, Any] | None = None,
) -> None:
    """Async version of `retry`."""
    await sync_to_async(retry)(agent_id, from_step=from_step, from_scratch=from_scratch, fresh=fresh, context=context)


def _prepared(agent_id: UUID, context: BaseModel | Mapping[str, Any]) -> dict[str, Any]:
    """Return what the row stores of a corrected context: its JSON, its lock key and its fairness. One query."""
    rows = Activity.objects.using(database()).filter(agent_id=agent_id)
    row = rows.only("agent_id", "agent_type", "metadata", "lock_key", "conversation_id").first()
    if row is None:
        raise ActivityNotFound(agent_id)
    task = registry.get(row.agent_type)
    stored = task.prepare(context if isinstance(context, BaseModel) else task.parse_context(context), row.metadata)
    return stored if row.conversation_id is None else {**stored, "lock_key": row.lock_key}


def _progress(agent_id: UUID, message: str, percentage: float | None) -> Progress:
    agent_id = validate_id(agent_id)
    return Progress(
        agent_id=agent_id,
        message=checked_message(message),
        percentage=validate_percentage(percentage),
        fence=_fence(agent_id),
    )


def _optional_message(message: str | None) -> str | None:
    return None if message is None else checked_message(message)


def _usage(agent_id: UUID, usage: Mapping[str, int], cost: Decimal | None) -> AddUsage:
    agent_id = validate_id(agent_id)
    if cost is not None and (not isinstance(cost, Decimal) or storable(cost) is None):
        raise InvalidOption(f"cost={cost!r:.50} must be an amount in US dollars, as a Decimal from 0, or None.")
    return AddUsage(agent_id=agent_id, usage=validate_usage(usage), cost=storable(cost), fence=_fence(agent_id))


def _fence(agent_id: UUID) -> int | None:
    attempt = current_attempt(agent_id)
    return attempt.fence if attempt else None


def _write(operation: OwnedOperation) -> None:
    attempt = current_attempt(operation.agent_id)
    if attempt:
        write_and_wait(attempt, operation)
    else:
        apply_one(operation)


async def _awrite(operation: OwnedOperation) -> None:
    attempt = current_attempt(operation.agent_id)
    if attempt:
        await asyncio.wrap_future(attempt.write(operation))
    else:
        await sync_to_async(apply_one)(operation)


def _end(operation: Operation) -> None:
    with transaction.atomic(using=database()):
        stop_on_commit([apply_one(operation)])
