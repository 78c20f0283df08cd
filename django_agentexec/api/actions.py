"""Cancel, retry and fork over REST."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

import pydantic
from django.utils.translation import gettext as _
from pydantic import BaseModel, ConfigDict
from rest_framework.exceptions import NotFound, PermissionDenied, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from .. import activity
from ..exceptions import InvalidContext, InvalidOption, InvalidTransition, UnknownTask
from ..models import Activity
from ..policy import Permission, get_policy
from ..redaction import redact_internals
from ..schemas import ActivityListItemSchema
from ..tasks.authorization import check_authorized, check_retry_authorized
from ..tasks.registry import registry
from .base import AgentView
from .bodies import BodySchema, JsonTextParser, read_body
from .errors import Conflict, Unprocessable, validation_error
from .openapi import header, operation, query_parameters
from .parameters import NoParameters, RetryOptions
from .permissions import MayCancel, MayEnqueue, MayRetry
from .schemas import EnqueuedSchema
from .tasks import exposed_task, parse_context


class RetryBody(BaseModel):
    """The optional body of a retry."""

    model_config = ConfigDict(extra="forbid")

    context: dict[str, Any] | None = None
    """A context that replaces the stored context."""
    fresh: bool = False
    """Whether the calls of its agents are made again; by default, recorded calls are replayed."""


class ActionView(AgentView):
    """A change of an activity, if its status allows it."""

    def find_target(self, agent_id: str) -> Activity:
        """Return the activity, with the columns that identify its task."""
        return self.find(agent_id, self.activities.only("agent_id", "agent_type", "metadata"))

    def apply(self, found: Activity, action: Callable[[UUID], None]) -> Response:
        """Apply `action` and return the changed activity; raise 409 with the reason if it is refused."""
        try:
            with activity.acting_as(self.request.user):
                action(found.agent_id)
        except InvalidOption as error:
            raise Unprocessable(str(error)) from error
        except InvalidTransition as refusal:
            status = Activity.objects.values_list("status", flat=True).get(agent_id=found.agent_id)
            raise Conflict(str(refusal), refusal.reason, status) from refusal
        changed = Activity.objects.without_payloads().get(agent_id=found.agent_id)
        item = ActivityListItemSchema.model_validate(changed).model_dump(mode="json")
        return Response(item if self.monitors else redact_internals(item), status=202)


class CancelView(ActionView):
    """The cancellation of an activity."""

    permission_classes = [MayCancel]

    @operation("cancel_activity", {202: ActivityListItemSchema}, errors=[404, 409])
    def post(self, request: Request, agent_id: str) -> Response:
        """Cancel an activity. A running handler is stopped."""
        return self.apply(self.find_target(agent_id), activity.cancel)


class RetryView(ActionView):
    """The retry of an activity."""

    permission_classes = [MayRetry]
    parser_classes = [JsonTextParser]
    schema = BodySchema()
    body = RetryBody

    @operation(
        "retry_activity",
        {202: ActivityListItemSchema},
        errors=[400, 404, 409, 413, 415, 422],
        parameters=partial(query_parameters, RetryOptions),
    )
    def post(self, request: Request, agent_id: str) -> Response:
        """Queue an activity in `error` or `canceled` again, under its id. The results of finished steps are kept.

        With an option, an activity in `complete` can be queued again, too. A body `{"context": {...}}` replaces the
        stored context; it requires permission to enqueue the task. A body `{"fresh": true}` makes the calls of its
        agents again; by default, recorded calls of models and tools are replayed and not paid again.
        """
        options, found = RetryOptions.read(request), self.find_target(agent_id)
        body = read_body(request, self.body)
        context = self._context(request, found, body.context)
        if context is None:
            check_retry_authorized(request.user, found.agent_id)
        retry = partial(
            activity.retry,
            from_step=options.from_step,
            from_scratch=options.from_scratch,
            fresh=body.fresh,
            context=context,
        )
        return self.apply(found, retry)

    def _context(self, request: Request, found: Activity, given: dict[str, Any] | None) -> BaseModel | None:
        """Return the new context, or None; raise 403 or, for a context that does not fit the task, 422."""
        if given is None:
            return None
        try:
            task = exposed_task(found.agent_type)
        except NotFound:
            task = None
        # A retry with another context is equivalent to an enqueue, and requires the same permission.
        if task is None or not get_policy().may(request.user, Permission.ENQUEUE):
            text = _("You may not enqueue task %(task)r, and therefore not change its context.")
            raise PermissionDenied(text % {"task": found.agent_type})
        try:
            context = parse_context(task, json.dumps(given).encode())
        except ValidationError as error:  # the body is well-formed, but does not fit this activity's task
            detail = _("The context does not fit task %(task)r.") % {"task": task.name}
            raise Unprocessable({"detail": detail, "context": error.detail}) from error
        check_authorized(task, request.user, context, found.metadata)
        return context


class ForkBody(BaseModel):
    """The body of a fork."""

    model_config = ConfigDict(extra="forbid")

    before: UUID
    """The id of a call: it and all later calls are made again."""


class ForkView(AgentView):
    """The fork of an activity."""

    permission_classes = [MayEnqueue]
    parser_classes = [JsonTextParser]
    schema = BodySchema()
    body = ForkBody

    @operation(
        "fork_activity",
        {202: EnqueuedSchema},
        errors=[400, 404, 409, 413, 415, 422],
        headers=[header("Location", str, 202, "The path of the new activity, for polling.")],
    )
    def post(self, request: Request, agent_id: str) -> Response:
        """Enqueue a new activity of the same task and context that replays the calls before `before`.

        Kept calls are not paid again. That call and all later ones are made again, so their tools have their effects
        once more. The original stays as it is. Requires the permission to enqueue its task.
        """
        NoParameters.read(request)
        found = self.find(agent_id, self.activities.only("agent_id", "agent_type", "metadata", "context"))
        body = read_body(request, self.body)
        self._check(found)
        try:
            with activity.acting_as(request.user):
                forked = activity.fork(found.agent_id, before=body.before)
        except InvalidTransition as refusal:
            raise Conflict(str(refusal), refusal.reason, found.status) from refusal
        except InvalidContext as error:
            raise _misfit(found, error) from error
        except InvalidOption as error:
            raise Unprocessable(str(error)) from error
        url = self.url("activity-detail", agent_id=forked)
        shape = EnqueuedSchema.model_validate({"agent_id": forked, "status": "queued", "status_url": url})
        return Response(shape.model_dump(mode="json"), status=202, headers={"Location": url})

    def _check(self, found: Activity) -> None:
        """Raise 403 if the user may not enqueue the task of an activity with its context, as in the admin."""
        try:
            task = registry.get(found.agent_type)
        except UnknownTask:
            task = None
        if task is None or not (task.api or self.monitors):
            raise PermissionDenied(_("You may not enqueue task %(task)r.") % {"task": found.agent_type})
        try:
            context = task.parse_context(found.context)
        except InvalidContext as error:
            raise _misfit(found, error) from error
        check_authorized(task, self.request.user, context, found.metadata)


def _misfit(found: Activity, error: InvalidContext) -> Unprocessable:
    """Return the response to a stored context that its task does not accept any more: without values and internals."""
    detail = _("The context does not fit task %(task)r.") % {"task": found.agent_type}
    cause = error.__cause__
    if isinstance(cause, pydantic.ValidationError):
        return Unprocessable({"detail": detail, "context": validation_error(cause).detail})
    return Unprocessable(detail if cause is not None else str(error))


B = TypeVar("B", bound=BaseModel)
