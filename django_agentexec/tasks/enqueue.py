"""Enqueue: check everything, write the row in the caller's transaction, push its id after the commit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Unpack
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db import IntegrityError
from django.utils import timezone
from pydantic import BaseModel

from ..activity.actor import acting_user_id
from ..activity.contexts import Context, register_prepare
from ..activity.current import current_attempt
from ..activity.store import database, insert
from ..bulk_sql import clone_row
from ..conf import conf
from ..dispatch.push import push_on_commit
from ..exceptions import InvalidContext, InvalidOption
from ..ids import uuid7
from ..models import Activity, Priority
from ..queues import get_queue
from ..validation import validate_metadata
from .context_input import read_context
from .contexts import stored_context
from .definition import BulkOptions, EnqueueOptions, TaskDefinition
from .options import check_names, due_time, validate_idempotency_key, validate_priority, validate_queue
from .queue_names import warn_of_undeclared_queue
from .registry import registry
from .status_url import status_url


@dataclass(frozen=True, slots=True)
class ActivityHandle:
    """What `enqueue` returns: enough to find the activity again."""

    agent_id: UUID
    agent_type: str
    created: bool = True
    """False if an idempotency key led to an activity that was there already."""

    @property
    def status_url(self) -> str:
        """The path of the activity in the REST API, or what `AGENTEXEC["STATUS_URL"]` says if that is not mounted."""
        return status_url(self.agent_id)


def enqueue(
    task: str | TaskDefinition[..., Any], context: BaseModel, **options: Unpack[EnqueueOptions]
) -> ActivityHandle:
    """Have a worker run `task` (by name or itself) with `context`; return at once.

    The row is written in the caller's transaction, if there is one: a rollback leaves nothing, and workers
    see the activity after the commit. If Redis is away, the activity waits in the database.

    Options: `priority` (a `Priority`), `metadata` (a JSON-able dictionary to filter by), `delay` (seconds or
    timedelta) or `run_after` (aware datetime), `queue`, and `idempotency_key`: a second enqueue of the same
    task with the same key returns the first one's activity.

    Raises `UnknownTask`, `InvalidContext` (`ContextTooLarge`, or for a context that a worker would load with other
    values) or `InvalidOption`, with nothing written.
    """
    check_names("enqueue", options, EnqueueOptions)
    key = validate_idempotency_key(options.get("idempotency_key"))
    shared: BulkOptions = {name: value for name, value in options.items() if name != "idempotency_key"}  # type: ignore[assignment]  # mypy cannot follow the names
    (activity,) = new_rows(definition_of(task), [context], **shared)
    activity.idempotency_key = key
    if key is None:
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


def enqueue_many(
    task: str | TaskDefinition[..., Any], contexts: Sequence[BaseModel], **options: Unpack[BulkOptions]
) -> list[ActivityHandle]:
    """Have workers run `task` once per context, in this order; rows and ids are written in bulk.

    Takes the options of `enqueue` except `idempotency_key`; all checks are made before the first write.
    """
    check_names("enqueue_many", options, BulkOptions)
    activities = new_rows(definition_of(task), contexts, **options)
    if activities:
        _insert(activities)
    return [handle_of(activity) for activity in activities]


aenqueue = sync_to_async(enqueue)
aenqueue_many = sync_to_async(enqueue_many)


def definition_of(task: str | TaskDefinition[..., Any]) -> TaskDefinition[..., Any]:
    """Return a task by its name, or itself. Raises `UnknownTask`."""
    return task if isinstance(task, TaskDefinition) else registry.get(task)


def new_rows(
    definition: TaskDefinition[..., Any],
    contexts: Sequence[BaseModel],
    *,
    priority: int | None = None,
    metadata: Mapping[str, Any] | None = None,
    delay: float | timedelta | None = None,
    run_after: datetime | None = None,
    queue: str | None = None,
) -> list[Activity]:
    """Return the rows of new activities, checked and not yet written. Raises as `enqueue` does."""
    attempt, stored_metadata = current_attempt(), validate_metadata(metadata)
    shared: dict[str, Any] = {
        "agent_type": definition.name,
        "metadata": stored_metadata,
        "priority": definition.priority if priority is None else validate_priority(priority),
        "run_after": due_time(delay, run_after),
        "queue": definition.queue if queue is None else validate_queue(queue),
        "max_retries": definition.max_retries,
        "parent_id": attempt.agent_id if attempt else None,
        "enqueued_by": attempt.enqueued_by if attempt else acting_user_id(),
        "created_at": (now := timezone.now()),
        "updated_at": now,
        "usage": {},
    }
    _check_abilities(definition, shared)
    warn_of_undeclared_queue(definition.name, shared["queue"])
    template = clone_row(_blank(), **shared)
    return [
        clone_row(
            template,
            agent_id=uuid7(),
            context=stored_context(definition, context),
            lock_key=definition.lock_key(context, stored_metadata),
        )
        for context in contexts
    ]


@cache
def _blank() -> Activity:
    """Return a new row with its defaults, to be copied."""
    return Activity()


def _check_abilities(definition: TaskDefinition[..., Any], shared: Mapping[str, Any]) -> None:
    """Raise `InvalidOption` for what the configured queue backend cannot do."""
    queue = get_queue()
    for wanted, able, what in (
        (shared["run_after"], queue.supports_delay, "delays"),
        (shared["priority"] != Priority.NORMAL, queue.supports_priority, "priorities"),
        (definition.lock_key_template, queue.supports_partitions, "lock keys"),
    ):
        if wanted and not able:
            raise InvalidOption(
                f"Task {definition.name!r}: the queue backend {type(queue).__name__} does not support {what}."
            )


def _prepare(agent_type: str, context: Context, metadata: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the stored form and the lock key of a corrected context."""
    definition = registry.get(agent_type)
    if not isinstance(context, BaseModel):
        try:
            context = read_context(definition, json.dumps(context))
        except Exception as error:  # a model's own validators may raise anything
            raise InvalidContext(f"The context does not fit task {definition.name!r}: {error}") from error
    return stored_context(definition, context), definition.lock_key(context, metadata)


def install() -> None:
    """Let `activity.retry(context=)` prepare contexts; called when the app is ready."""
    register_prepare(_prepare)


def _insert(activities: list[Activity]) -> None:
    insert(activities, conf.ACTIVITY_MESSAGE_CREATE, push_on_commit)


def _find(activity: Activity) -> Activity | None:
    same = Activity.objects.using(database()).filter(
        agent_type=activity.agent_type, idempotency_key=activity.idempotency_key
    )
    return same.only("agent_id", "agent_type").first()


def handle_of(activity: Activity, *, created: bool = True) -> ActivityHandle:
    """Return the handle of a row."""
    return ActivityHandle(activity.agent_id, activity.agent_type, created)
