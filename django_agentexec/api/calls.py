"""The recorded calls of an activity over REST: what its agents have asked models and tools, and what they answered."""

from __future__ import annotations

from functools import partial

from django.utils.translation import gettext as _
from pydantic import Field
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from ..calls.queries import CallDetailSchema, CallListSchema, detail_of, page_of_calls
from ..models import AgentCall, CallKind, CallState
from ..parsing import parse_id
from ..redaction import redact_internals
from .base import AgentView
from .errors import invalid_parameter
from .openapi import operation, query_parameters
from .parameters import QueryParameters
from .permissions import MayView

MAX_CALLS = 200  # of one response


class CallParameters(QueryParameters):
    """The part of the trace to return."""

    after: str | None = Field(
        None,
        json_schema_extra={"format": "uuid"},
        description="Return only calls after the call with this id.",
    )
    page_size: int = Field(50, ge=1, le=MAX_CALLS, description="Calls per response.")
    kind: CallKind | None = Field(None, description="Only runs of agents, calls of models, tools, or side effects.")
    state: CallState | None = Field(None, description="Only calls in this state.")
    name: str | None = Field(None, min_length=1, max_length=200, description="Only calls of this model or tool.")
    current: bool = Field(False, description="Leave out the calls that a fresh retry has replaced.")
    content: bool = Field(True, description="Whether to return arguments and outputs.")


class CallListView(AgentView):
    """The calls of an activity."""

    permission_classes = [MayView]

    @operation(
        "list_activity_calls",
        {200: CallListSchema},
        errors=[400, 404],
        parameters=partial(query_parameters, CallParameters),
    )
    def get(self, request: Request, agent_id: str) -> Response:
        """List the calls of an activity's agents in the order of their start.

        `parent_id` makes a tree of them: runs of agents contain calls of models and tools, and a tool call contains the
        runs that began in it. A page with more than 4 MB of content has fewer calls than requested.

        Arguments and outputs are subject to `TRACE_CONTENT` and `TRACE_REDACT`; without the monitor permission errors
        are in their public form.
        """
        parameters = CallParameters.read(request)
        found = self.find(agent_id, self.activities.only("agent_id", "metadata", "fence"))
        calls = AgentCall.objects.of(found.agent_id)
        if parameters.after is not None:
            try:
                calls = calls.filter(id__gt=parse_id(parameters.after))
            except ValueError:
                raise invalid_parameter("after", _("Give the id of a call.")) from None
        for name in ("kind", "state", "name"):
            if (value := getattr(parameters, name)) is not None:
                calls = calls.filter(**{name: value})
        if parameters.current:
            calls = calls.filter(set_aside=0)
        page = page_of_calls(
            found, calls, parameters.page_size, monitors=self.monitors, with_content=parameters.content
        ).model_dump(mode="json")
        return Response(page if self.monitors else redact_internals(page))


class CallDetailView(AgentView):
    """One call."""

    permission_classes = [MayView]

    @operation("get_activity_call", {200: CallDetailSchema}, errors=[404])
    def get(self, request: Request, agent_id: str, call_id: str) -> Response:
        """Return a call with its content. The raw request requires the monitor permission."""
        found = self.find(agent_id, self.activities.only("agent_id", "metadata", "fence"))
        try:
            call = AgentCall.objects.of(found.agent_id).filter(id=parse_id(call_id)).first()
        except ValueError:
            call = None
        if call is None:
            text = _("Activity %(agent_id)s has no call %(call_id)s.")
            raise NotFound(text % {"agent_id": agent_id, "call_id": call_id[:80]})
        detail = detail_of(found, call, monitors=self.monitors).model_dump(mode="json")
        return Response(detail if self.monitors else redact_internals(detail))
