"""Activities over REST: the list, the number of active activities, a detail with its log, and the result."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.http import HttpRequest, HttpResponseBase
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from rest_framework.exceptions import NotFound
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from ..activity.queries import page_of
from ..concurrency.rules import note_pauses
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
    Status.QUEUED: gettext_lazy("still queued"),
    Status.RUNNING: gettext_lazy("still running"),
    Status.ERROR: gettext_lazy("ended in error"),
    Status.CANCELED: gettext_lazy("canceled"),
}


class ActivityListView(AgentView):
    """The list of visible activities."""

    permission_classes = [MayView]

    @operation(
        "list_activities",
        {200: ActivityListSchema},
        errors=[400, 404],
        parameters=lambda: [*query_parameters(Paging), *filter_parameters()],
    )
    def get(self, request: Request) -> Response:
        """List activities in pages: active activities first, then the newest.

        Parameters of the form `metadata.<key>=<value>` filter by metadata, such as
        `metadata.organization_id=org-1`. A value that is a JSON number or boolean matches that number or boolean,
        too. `status` and `metadata.<key>` can be repeated; an activity must match one of the values.
        """
        paging = Paging.read(request, other_names=ActivityFilter.base_filters, allow_metadata=True)
        activities = filtered(self.activities, request, searches_errors=self.monitors)
        if (paging.page - 1) * paging.page_size >= conf.COUNT_LIMIT:
            text = _(
                "Page %(page)s is beyond the %(limit)s activities that are counted. Narrow the list, for example with "
                "created_before."
            )
            raise NotFound(text % {"page": paging.page, "limit": f"{conf.COUNT_LIMIT:,}"})
        page = page_of(activities, paging.page, paging.page_size).model_dump(mode="json")
        return Response(page if self.monitors else redact_internals(page))


class ActiveCountView(AgentView):
    """The number of active activities."""

    permission_classes = [MayView]

    @operation("count_active_activities", {200: ActivityCountSchema}, errors=[400])
    def get(self, request: Request) -> Response:
        """Count the activities that are queued or running, up to `AGENTEXEC["COUNT_LIMIT"]`."""
        NoParameters.read(request)
        count = self.activities.active().bounded_count(conf.COUNT_LIMIT)
        return Response(ActivityCountSchema(count=count).model_dump(mode="json"))


class ActivityDetailView(AgentView):
    """An activity with its log."""

    permission_classes = [MayView]

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Limit how many of the waiting requests use the database at once."""
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
        """Return an activity with its log; with `wait`, as soon as it changes.

        To miss nothing between two requests, send as `after` the largest id of the log lines you have received. The
        response then contains up to 500 newer lines, and `has_more_logs` is true if there are more. Without `after`
        it contains the last 500 lines, and `has_earlier_logs` is true if there are earlier lines; `after=0` starts
        with the first line. `traceback` and `worker` are empty without the monitor permission.
        """
        parameters = Waiting.read(request)
        if parameters.wait:
            self.find(agent_id, self.activities.only("agent_id", "metadata"))
            with one_of_few_waits(request):
                wait_for_change(validate_id(agent_id), parameters.wait, parameters.after, self._turn)
        found = self.find(agent_id, self.activities)
        note_pauses([found])
        detail = read_latest(found) if parameters.after is None else read_detail(found, parameters.after)[0]
        return Response(detail if self.monitors else redact_internals(detail))


class ResultRenderer(JSONRenderer):
    """A JSON renderer that sends `null` for a result of None; REST framework sends no body."""

    def render(self, data: Any, accepted_media_type: str | None = None, renderer_context: Any = None) -> bytes:
        """Return the JSON text."""
        return b"null" if data is None else super().render(data, accepted_media_type, renderer_context)


class ActivityResultView(AgentView):
    """The result of an activity."""

    permission_classes = [MayView]
    renderer_classes = [ResultRenderer]

    @operation(
        "get_activity_result",
        {200: {"description": "The return value of the task, as JSON."}},
        errors=[404, 409, 410],
    )
    def get(self, request: Request, agent_id: str) -> Response:
        """Return the result only. 409 reports the status while there is no result, 410 a pruned activity."""
        try:
            found = self.find(agent_id, self.activities.defer("context", "traceback"))
        except ActivityNotFound:
            # Requires the monitor permission, since the answer reveals the age of the oldest activity of all tenants.
            if self.monitors and _is_pruned(agent_id):
                raise Gone(_("This activity is older than all stored activities: it has been pruned.")) from None
            raise
        if found.status == Status.COMPLETE:
            return Response(found.result)
        reason = str(_NO_RESULT[Status(found.status)])
        error = found.error if self.monitors else public_error(found.error, found.public_error)
        explanation = f"{reason}: {error}" if found.status == Status.ERROR else reason
        raise Conflict(
            _("Activity %(agent_id)s has no result: %(reason)s.") % {"agent_id": agent_id, "reason": explanation},
            reason,
            found.status,
            retry_after=RETRY_AFTER if found.is_active else None,
        )


def _is_pruned(agent_id: str) -> bool:
    """Return whether the id is older than all stored activities; ids of version 7 are ordered by time."""
    uuid = validate_id(agent_id)
    if uuid.version != 7:
        return False
    oldest = Activity.objects.order_by("agent_id").values_list("agent_id", flat=True).first()
    return oldest is not None and uuid < oldest
