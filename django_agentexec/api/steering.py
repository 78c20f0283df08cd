"""Cancel and retry over REST."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from uuid import UUID

from rest_framework.request import Request
from rest_framework.response import Response

from .. import activity
from ..exceptions import InvalidOption, InvalidTransition
from ..models import Activity
from ..schemas import ActivityListItemSchema
from .base import AgentView
from .errors import Conflict, Unprocessable
from .openapi import operation, query_parameters
from .parameters import RetryOptions
from .permissions import MayCancel, MayRetry


class SteeringView(AgentView):
    """Changes an activity, if its state allows."""

    def change(self, agent_id: str, verb: Callable[[UUID], None]) -> Response:
        """Apply `verb` and return the activity as it is then; raise 409 with the reason of a refusal."""
        found = self.find(agent_id, self.activities.only("agent_id", "metadata"))
        try:
            verb(found.agent_id)
        except InvalidOption as error:
            raise Unprocessable(str(error)) from error
        except InvalidTransition as refusal:
            state = Activity.objects.values_list("status", flat=True).get(agent_id=found.agent_id)
            raise Conflict(str(refusal), refusal.reason, state) from refusal
        light = Activity.objects.light()
        item = ActivityListItemSchema.model_validate(light.get(agent_id=found.agent_id))
        return Response(item.model_dump(mode="json"), status=202)


class CancelView(SteeringView):
    """Cancel."""

    permission_classes = [MayCancel]

    @operation("cancel_activity", {202: ActivityListItemSchema}, errors=[404, 409])
    def post(self, request: Request, agent_id: str) -> Response:
        """Cancel an activity, for good; a handler that runs is stopped."""
        return self.change(agent_id, activity.cancel)


class RetryView(SteeringView):
    """Retry."""

    permission_classes = [MayRetry]

    @operation(
        "retry_activity",
        {202: ActivityListItemSchema},
        errors=[400, 404, 409, 422],
        parameters=partial(query_parameters, RetryOptions),
    )
    def post(self, request: Request, agent_id: str) -> Response:
        """Queue an activity in error, or a canceled one, once more under its id; what its steps have finished is kept.

        With an option, a complete one, too.
        """
        options = RetryOptions.read(request)
        return self.change(
            agent_id, partial(activity.retry, from_step=options.from_step, from_scratch=options.from_scratch)
        )
