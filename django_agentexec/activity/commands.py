"""The verbs of an activity's life, each in a sync and an `a...` form.

An attempt's own writes go through its worker's recorder, under its fence; everyone else's are applied at
once, in the caller's transaction if there is one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db import transaction
from pydantic import BaseModel

from ..conf import conf
from ..dispatch.push import push_on_commit, stop_on_commit
from ..exceptions import ActivityNotFound, InvalidOption, ResultError
from ..ids import uuid7
from ..models import Activity
from ..registry import registry
from ..validation import (
    MAX_NAME,
    checked_message,
    is_storable,
    json_result,
    validate_id,
    validate_metadata,
    validate_percentage,
    validate_usage,
)
from .current import current_attempt, write_and_wait
from .rerun import reset_steps
from .store import apply_one, database, insert
from .transitions import AddUsage, Cancel, Complete, Fail, Operation, OwnedOperation, Progress, Rerun, Retry


def create(
    agent_type: str,
    message: str | None = None,
    *,
    context: BaseModel | Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    agent_id: UUID | None = None,
) -> UUID:
    """Record a run that you drive yourself, outside of any queue, and return its id.

    It is `queued` until the first `update`, and ends with your `complete`, `error` or `cancel`. To have a
    task run by the workers, use `enqueue` instead. Raises `InvalidOption` for what cannot be stored.
    """
    if not 1 <= len(agent_type) <= MAX_NAME or not is_storable(agent_type):
        raise InvalidOption(f"An agent type has 1 to {MAX_NAME} characters, but this is {agent_type!r}.")
    try:
        content = json_result(context or {})
    except ResultError as error:
        raise InvalidOption(f"The context of {agent_type!r} cannot be stored: {error}") from error
    text = "" if message is None else checked_message(message)
    activity = Activity(
        agent_id=agent_id or uuid7(),
        agent_type=agent_type,
        context=content,
        metadata=validate_metadata(metadata),
        queue="",
    )
    insert([activity], conf.ACTIVITY_MESSAGE_CREATE if message is None else text)
    return activity.agent_id


def update(agent_id: UUID, message: str, percentage: float | None = None) -> None:
    """Log `message`, and set the progress if a percentage (0 to 100) is given; it may be lower than before.

    Raises `InvalidOption` for an impossible percentage, a message that is empty, no text, or longer than
    `MAX_MESSAGE_LENGTH`, `InvalidTransition` if the activity has ended or waits in a queue, `StaleAttempt` if the
    calling attempt does not own it any more, `ActivityNotFound`.
    """
    _write(_progress(agent_id, message, percentage))


async def aupdate(agent_id: UUID, message: str, percentage: float | None = None) -> None:
    """Do what `update` does; returns when the change is committed."""
    await _awrite(_progress(agent_id, message, percentage))


def add_usage(agent_id: UUID, usage: Mapping[str, int]) -> None:
    """Add token counts, such as `{"input_tokens": 120, "output_tokens": 80}`, to what the activity has."""
    _write(_usage(agent_id, usage))


async def aadd_usage(agent_id: UUID, usage: Mapping[str, int]) -> None:
    """Do what `add_usage` does."""
    await _awrite(_usage(agent_id, usage))


def complete(agent_id: UUID, message: str | None = None, *, result: Any = None) -> None:
    """End the activity as `complete`; a worker that runs it is told to stop.

    `result` may be what JSON holds, or a Pydantic model; anything else raises `ResultError`.
    """
    _end(Complete(agent_id=validate_id(agent_id), message=_optional(message), result=json_result(result)))


def error(agent_id: UUID, message: str, *, traceback: str = "") -> None:
    """End the activity as `error`; `message` says why, to everybody. A worker that runs it is told to stop."""
    # Cut instead of refused: an activity must not stay active because of its error's length.
    text = str(message)[: conf.MAX_MESSAGE_LENGTH]
    _end(Fail(agent_id=validate_id(agent_id), error=text, public_error=text, traceback=traceback))


def cancel(agent_id: UUID, message: str | None = None) -> None:
    """End the activity as `canceled`, at once and for good; a running handler is stopped.

    Raises `InvalidTransition` if it has ended already, `ActivityNotFound`.
    """
    _end(Cancel(agent_id=validate_id(agent_id), message=_optional(message)))


def retry(
    agent_id: UUID,
    *,
    from_step: str | None = None,
    from_scratch: bool = False,
    context: BaseModel | Mapping[str, Any] | None = None,
) -> None:
    """Queue an activity in `error` or `canceled` once more, under the same id.

    Finished steps of a pipeline and finished children are kept; failed and canceled children, those that were given
    up on included, are run again when it spawns them. `from_step` repeats a pipeline from that step on, with new
    children, `from_scratch` all of it; these two take a `complete` one, too. `context` takes the place of the stored
    one: a corrected model, or its values as a dictionary, for example of an activity that was enqueued before a deploy
    changed the model.

    Raises `InvalidTransition` in any other state, and for a child whose parent has failed or was canceled (retry the
    parent), `InvalidOption` for a step that has not run, `InvalidContext` for a context that does not fit the task,
    `UnknownTask`, `ActivityNotFound`.
    """
    if from_step is not None and from_scratch:
        raise InvalidOption("Give from_step or from_scratch, not both.")
    agent_id, is_chosen = validate_id(agent_id), from_scratch or from_step is not None
    stored, lock_key = (None, None) if context is None else _prepared(agent_id, context)
    kind = Rerun if is_chosen else Retry
    with transaction.atomic(using=database()):
        row = apply_one(kind(agent_id=agent_id, context=stored, lock_key=lock_key))
        if is_chosen:
            reset_steps(agent_id, from_step)
        push_on_commit([row], again=True)


def _prepared(agent_id: UUID, context: BaseModel | Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return what the row stores of a corrected context: its JSON and its lock key. One query."""
    rows = Activity.objects.using(database()).filter(agent_id=agent_id)
    row = rows.only("agent_id", "agent_type", "metadata").first()
    if row is None:
        raise ActivityNotFound(agent_id)
    task = registry.get(row.agent_type)
    return task.prepare(context if isinstance(context, BaseModel) else task.parse_context(context), row.metadata)


def _progress(agent_id: UUID, message: str, percentage: float | None) -> Progress:
    agent_id = validate_id(agent_id)
    return Progress(
        agent_id=agent_id,
        message=checked_message(message),
        percentage=validate_percentage(percentage),
        fence=_fence(agent_id),
    )


def _optional(message: str | None) -> str | None:
    return None if message is None else checked_message(message)


def _usage(agent_id: UUID, usage: Mapping[str, int]) -> AddUsage:
    agent_id = validate_id(agent_id)
    return AddUsage(agent_id=agent_id, usage=validate_usage(usage), fence=_fence(agent_id))


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


acreate = sync_to_async(create)
acomplete = sync_to_async(complete)
aerror = sync_to_async(error)
acancel = sync_to_async(cancel)
aretry = sync_to_async(retry)
