"""`@task(authorize=...)`: whether a user may run a task with these ids in its context."""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync
from django.core.exceptions import PermissionDenied
from pydantic import BaseModel

from ..exceptions import NotAuthorized, TaskDefinitionError, UnknownTask, UserFacingError
from ..models import Activity
from ..registry import registry
from ..validation import one_line

if TYPE_CHECKING:
    from uuid import UUID

    from .definition import AnyTask

logger = logging.getLogger(__name__)

Authorize = Callable[[Any, Any, Mapping[str, Any]], bool | Awaitable[bool]]


def check_authorize(name: str, authorize: object) -> None:
    """Raise `TaskDefinitionError` for what cannot be called with user, context and metadata."""
    if authorize is None:
        return
    if not callable(authorize):
        raise TaskDefinitionError(
            f"Task {name!r}: authorize={authorize!r} must be a function of user, context and metadata."
        )
    try:
        inspect.signature(authorize).bind(None, None, {})
    except TypeError as error:
        raise TaskDefinitionError(
            f"Task {name!r}: authorize must take user, context and metadata, but {authorize!r} cannot: {error}."
        ) from error
    except ValueError:
        return  # a builtin without a signature


def check_authorized(definition: AnyTask, user: Any, context: BaseModel, metadata: Mapping[str, Any]) -> None:
    """Raise `NotAuthorized` unless the task's `authorize` returns a true value; not for async code."""
    if definition.authorize is None:
        return
    try:
        answer = definition.authorize(user, context, dict(metadata))
        if inspect.isawaitable(answer):
            answer = async_to_sync(_awaited)(answer)
    except (PermissionDenied, UserFacingError) as refusal:
        raise NotAuthorized(str(refusal) or _refusal(definition)) from refusal
    except Exception as error:
        logger.warning(
            "authorize of task %s failed, which refuses the request: %s",
            definition.name,
            one_line(error),
            exc_info=error,
            extra={"task": definition.name},
        )
        raise NotAuthorized(_refusal(definition)) from error
    if answer is None:
        logger.warning("authorize of task %s returned None, which refuses; return True to allow.", definition.name)
    if not answer:
        raise NotAuthorized(_refusal(definition))


def check_retry_authorized(user: Any, agent_id: UUID) -> None:
    """Raise `NotAuthorized` unless the user may run the stored task with the stored context; not for async code.

    One query. Lets a task pass that is not registered here: it has no `authorize` to ask.
    """
    row = Activity.objects.filter(agent_id=agent_id).only("agent_id", "agent_type", "metadata").first()
    if row is None:
        return  # deleted meanwhile; the retry reports it
    try:
        definition = registry.get(row.agent_type)
    except UnknownTask:
        return
    if definition.authorize is None:
        return
    try:
        context = definition.load_context(json.dumps(row.context))
    except Exception as error:  # a model's own validators may raise anything
        raise NotAuthorized(
            f"The stored context does not fit task {definition.name!r} any more, so whether you may run it cannot be "
            "checked. Retry it with a corrected context."
        ) from error
    check_authorized(definition, user, context, row.metadata)


async def _awaited(answer: Awaitable[Any]) -> Any:
    return await answer


def _refusal(definition: AnyTask) -> str:
    return f"You may not run task {definition.name!r} with this context."
