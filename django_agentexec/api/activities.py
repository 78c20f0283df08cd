"""Activities over REST: the list, one with its log, how many are active, and what one returned."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.http import HttpRequest, HttpResponseBase
from rest_framework.exceptions import NotFound
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from ..activity.queries import page_of
from ..conf import conf
from ..exceptions import ActivityNotFound
from ..live.reading import read_detail, read_latest
from ..models import Activity, Status
from ..public_errors import public_error
from ..redaction import redact_internals
from ..schemas import ActivityCountSchema, ActivityDetailSchema, ActivityListSchema
from ..validation import validate_id
from .base import AgentView
from .errors import RETRY_AFTER, Conflict, Gone
from .filters import ActivityFilter, filter_parameters, filtered
from .openapi import operation, query_parameters
from .parameters import NoParameters, Paging, Waiting
from .permissions import MayView
from .waiting import Turn, one_of_few_waits, wait_for_change

_NO_RESULT = {
    Status.QUEUED: "still queued",
    Status.RUNNING: "still running",
    Status.ERROR: "ended in error",
    Status.CANCELED: "canceled",
}


class ActivityListView(AgentView):
    """The activities that one may see."""

    permission_classes = [MayView]

    @operation(
        "list_activities",
        {200: ActivityListSchema},
        errors=[400, 404],
        parameters=lambda: [*query_parameters(Paging), *filter_parameters()],
    )
    def get(self, request: Request) -> Response:
        """List activities, a page at a time: active ones first, then the newest.

        Any number of `metadata.<key>=<value>` parameters filter by metadata: `metadata.organization_id=org-1`.
        A value that reads as a JSON number or boolean finds those, too. `status` and `metadata.<key>` can be
        repeated; one of the values must fit.
        """
        paging = Paging.read(request, besides=ActivityFilter.base_filters, metadata=True)
        wanted = filtered(self.activities, request, searches_errors=self.monitors)
        if (paging.page - 1) * paging.page_size >= conf.COUNT_LIMIT:
            raise NotFound(
                f"Page {paging.page}: pages end with the {conf.COUNT_LIMIT:,} activities that are counted. "
                "Ask for less, for example with created_before."
            )
        page = page_of(wanted, paging.page, paging.page_size).model_dump(mode="json")
        return Response(page if self.monitors else redact_internals(page))


class ActiveCountView(AgentView):
    """How much there is to do."""

    permission_classes = [MayView]

    @operation("count_active_activities", {200: ActivityCountSchema}, errors=[400])
    def get(self, request: Request) -> Response:
        """Count the activities that are queued or running, up to `AGENTEXEC["COUNT_LIMIT"]`."""
        NoParameters.read(request)
        count = self.activities.active().bounded_count(conf.COUNT_LIMIT)
        return Response(ActivityCountSchema(count=count).model_dump(mode="json"))


class ActivityDetailView(AgentView):
    """One activity."""

    permission_classes = [MayView]

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Let few of the requests that wait use the database at once."""
        self._turn = Turn()
        if "wait" not in request.GET:
            return super().dispatch(request, *args, **kwargs)
        with self._turn:
            return super().dispatch(request, *args, **kwargs)

    @operation(
        "get_activity",
        {200: ActivityDetailSchema},
        errors=[400, 404],
        parameters=partial(query_parameters, Waiting),
    )
    def get(self, request: Request, agent_id: str) -> Response:
        """Show an activity with its log; with `wait`, when it has changed.

        Give `after`, the largest id of the log lines that you have, to miss nothing between two requests; of a long
        log the response has the 500 lines after that one, and `has_more_logs` says that it goes on. Without `after` it
        has the last 500 lines, and `has_earlier_logs` says that there are others; `after=0` begins with the first.
        `traceback` and `worker` are shown to those who may see the servers, and empty for others.
        """
        asked = Waiting.read(request)
        if asked.wait:
            self.find(agent_id, self.activities.only("agent_id", "metadata"))
            with one_of_few_waits(request):
                wait_for_change(validate_id(agent_id), asked.wait, asked.after, self._turn)
        found = self.find(agent_id, self.activities)
        detail = read_latest(found) if asked.after is None else read_detail(found, asked.after)[0]
        return Response(detail if self.monitors else redact_internals(detail))


class ResultRenderer(JSONRenderer):
    """JSON, in which a result of None is `null`, where REST framework would send no body."""

    def render(self, data: Any, accepted_media_type: str | None = None, renderer_context: Any = None) -> bytes:
        """Return the JSON text."""
        return b"null" if data is None else super().render(data, accepted_media_type, renderer_context)


class ActivityResultView(AgentView):
    """What an activity returned."""

    permission_classes = [MayView]
    renderer_classes = [ResultRenderer]

    @operation(
        "get_activity_result",
        {200: {"description": "What the task returned, as JSON."}},
        errors=[404, 409, 410],
    )
    def get(self, request: Request, agent_id: str) -> Response:
        """Return the result alone. 409 tells the state while there is none, 410 that it has been pruned."""
        light = self.activities.defer("context", "traceback")
        try:
            found = self.find(agent_id, light)
        except ActivityNotFound:
            # Only for who sees all: to others, an id older than the oldest row would tell when the oldest row is from.
            if self.monitors and _is_pruned(agent_id):
                raise Gone("This activity is older than all that are kept; it has been pruned.") from None
            raise
        if found.status == Status.COMPLETE:
            return Response(found.result)
        reason = _NO_RESULT[Status(found.status)]
        error = found.error if self.monitors else public_error(found.error, found.public_error)
        told = f"{reason}: {error}" if found.status == Status.ERROR else reason
        raise Conflict(
            f"Activity {agent_id} has no result: {told}.",
            reason,
            found.status,
            wait=RETRY_AFTER if found.is_active else None,
        )


def _is_pruned(agent_id: str) -> bool:
    """Whether the id is from before the oldest activity of all: ids of version 7 are in the order of time."""
    wanted = validate_id(agent_id)
    if wanted.version != 7:
        return False
    oldest = Activity.objects.order_by("agent_id").values_list("agent_id", flat=True).first()
    return oldest is not None and wanted < oldest
