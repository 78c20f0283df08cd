"""Cancel and retry over REST."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID

import pydantic
from pydantic import BaseModel, ConfigDict
from rest_framework.exceptions import NotFound, PermissionDenied, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from .. import activity
from ..exceptions import InvalidOption, InvalidTransition
from ..models import Activity
from ..policy import Permission, get_policy
from ..redaction import redact_internals
from ..schemas import ActivityListItemSchema
from ..tasks.authorization import check_authorized, check_retry_authorized
from .base import AgentView
from .errors import Conflict, Unprocessable, invalid
from .openapi import AgentSchema, Component, operation, query_parameters
from .parameters import RetryOptions
from .permissions import MayCancel, MayRetry
from .tasks import JsonTextParser, outside_context, outside_task


class RetryBody(BaseModel):
    """The body of a retry; it may be left out."""

    model_config = ConfigDict(extra="forbid")

    context: dict[str, Any] | None = None
    """Takes the place of the stored context, of which it may be a corrected form."""


class SteeringView(AgentView):
    """Changes an activity, if its state allows."""

    def found(self, agent_id: str) -> Activity:
        """Return the activity, with the columns that its task is known by."""
        return self.find(agent_id, self.activities.only("agent_id", "agent_type", "metadata"))

    def change(self, found: Activity, verb: Callable[[UUID], None]) -> Response:
        """Apply `verb` and return the activity as it is then; raise 409 with the reason of a refusal."""
        try:
            with activity.acting_as(self.request.user):
                verb(found.agent_id)
        except InvalidOption as error:
            raise Unprocessable(str(error)) from error
        except InvalidTransition as refusal:
            state = Activity.objects.values_list("status", flat=True).get(agent_id=found.agent_id)
            raise Conflict(str(refusal), refusal.reason, state) from refusal
        light = Activity.objects.without_payloads()
        item = ActivityListItemSchema.model_validate(light.get(agent_id=found.agent_id)).model_dump(mode="json")
        return Response(item if self.monitors else redact_internals(item), status=202)


class CancelView(SteeringView):
    """Cancel."""

    permission_classes = [MayCancel]

    @operation("cancel_activity", {202: ActivityListItemSchema}, errors=[404, 409])
    def post(self, request: Request, agent_id: str) -> Response:
        """Cancel an activity, for good; a handler that runs is stopped."""
        return self.change(self.found(agent_id), activity.cancel)


class RetrySchema(AgentSchema):
    """Describes the body of a retry."""

    def get_request_serializer(self) -> Any:
        """Return it."""
        return Component(RetryBody, "AgentRetry", "validation")


class RetryView(SteeringView):
    """Retry."""

    permission_classes = [MayRetry]
    parser_classes = [JsonTextParser]
    schema = RetrySchema()

    @operation(
        "retry_activity",
        {202: ActivityListItemSchema},
        errors=[400, 404, 409, 413, 415, 422],
        parameters=partial(query_parameters, RetryOptions),
    )
    def post(self, request: Request, agent_id: str) -> Response:
        """Queue an activity in error, or a canceled one, once more under its id; what its steps have finished is kept.

        With an option, a complete one, too. A body `{"context": {...}}` takes the place of the stored context, for a
        caller who may enqueue the task.
        """
        options, found = RetryOptions.read(request), self.found(agent_id)
        context = self._context(request, found)
        if context is None:
            check_retry_authorized(request.user, found.agent_id)
        verb = partial(activity.retry, from_step=options.from_step, from_scratch=options.from_scratch, context=context)
        return self.change(found, verb)

    def _context(self, request: Request, found: Activity) -> BaseModel | None:
        """Return the corrected context, if one is given; raise 400, 403 or, if it does not fit the task, 422."""
        parsed: Any = request.data
        try:
            given = RetryBody.model_validate_json(parsed.get("json", b"{}")).context
        except pydantic.ValidationError as error:
            raise invalid(error) from error
        if given is None:
            return None
        try:
            task = outside_task(found.agent_type)
        except NotFound:
            task = None
        # Another context is another run: it takes what an enqueue takes.
        if task is None or not get_policy().may(request.user, Permission.ENQUEUE):
            raise PermissionDenied(f"You may not enqueue task {found.agent_type!r}, nor give it another context.")
        try:
            context = outside_context(task, json.dumps(given).encode())
        except ValidationError as error:  # not of the body's shape, but of what this activity's task takes
            detail = f"The context does not fit task {task.name!r}."
            raise Unprocessable({"detail": detail, "context": error.detail}) from error
        check_authorized(task, request.user, context, found.metadata)
        return context
