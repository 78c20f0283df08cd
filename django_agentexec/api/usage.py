"""Usage and cost over REST: of a period by group, as JSON or CSV, and of one activity with its children."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Annotated, Any, Literal

from django.http import HttpResponse, HttpResponseBase
from django.utils.cache import patch_vary_headers
from django.utils.translation import gettext as _
from pydantic import BaseModel, BeforeValidator, Field, create_model
from rest_framework.exceptions import PermissionDenied
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from ..conf import conf
from ..costs.period import MAX_DAYS, Period, zone_of
from ..costs.runs import MAX_RUNS, ExpensiveRunSchema, expensive_runs
from ..costs.usage import (
    METADATA,
    UsageGroupSchema,
    UsageReportSchema,
    UsageSchema,
    calls_of,
    group_expression,
    tree_usage,
    usage_csv,
    usage_report,
)
from ..exceptions import InvalidOption
from ..models import ActivityQuerySet
from ..parsing import parse_day
from .base import AgentView
from .errors import invalid_parameter
from .openapi import operation, query_parameters
from .parameters import NoParameters, QueryParameters, metadata_of
from .permissions import MayView

CSV = "text/csv"


def _validate_day(text: Any) -> date:
    day = parse_day(str(text))
    if day is None:
        raise ValueError(_("Give a day in the form YYYY-MM-DD."))
    return day


_Day = Annotated[date, BeforeValidator(_validate_day)]

# `from` is no name that a class could declare.
PeriodParameters = create_model(
    "PeriodParameters",
    __base__=QueryParameters,
    __doc__="The period of a report.",
    **{
        "from": (_Day | None, Field(None, description="The first day; by default 27 days before the last day.")),
        "to": (
            _Day | None,
            Field(None, description=f"The last day, which is included; by default today. At most {MAX_DAYS} days."),
        ),
    },
    time_zone=(
        str | None,
        Field(None, max_length=80, description="The time zone of the days, such as Europe/Berlin; default: Django's."),
    ),
)  # type: ignore[call-overload]  # the stubs expect names of fields as keywords


class UsageParameters(PeriodParameters):  # type: ignore[valid-type, misc]  # made by a function
    """The group and the period of a report."""

    group_by: str = Field("day", max_length=220, description="`day`, `task`, `model` or `metadata.<key>`.")
    format: Literal["json", "csv"] | None = Field(None, description="By default according to the Accept header.")


class RunsParameters(PeriodParameters):  # type: ignore[valid-type, misc]
    """The period and the length of a list of runs."""

    limit: int = Field(10, ge=1, le=MAX_RUNS, description="The largest number of runs.")


class ExpensiveRunsSchema(BaseModel):
    """The most expensive runs of a period."""

    first: date = Field(serialization_alias="from")
    """The first day."""
    last: date = Field(serialization_alias="to")
    """The last day, which is included."""
    time_zone: str
    """The time zone of the days."""
    currency: str = "USD"
    runs: list[ExpensiveRunSchema]
    """The highest cost first."""


class ActivityUsageSchema(BaseModel):
    """The usage of an activity with all activities below it, in all attempts."""

    totals: UsageSchema
    models: list[UsageGroupSchema]
    """By model, the highest cost first."""


class CsvNegotiation(DefaultContentNegotiation):
    """Content negotiation that accepts CSV, too; the view itself returns it."""

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        """Return the renderer of JSON, which errors use in any case."""
        known = list(renderers)
        if "format" in request.query_params or prefers_csv(request):
            return known[0], str(known[0].media_type)
        found: tuple[BaseRenderer, str] = super().select_renderer(request, known, format_suffix)
        return found


class UsageView(AgentView):
    """The usage of the visible activities."""

    permission_classes = [MayView]
    content_negotiation_class = CsvNegotiation

    @operation(
        "get_usage",
        {(200, "application/json"): UsageReportSchema, (200, CSV): {"type": "string"}},
        errors=[400],
        parameters=lambda: query_parameters(UsageParameters),
    )
    def get(self, request: Request) -> HttpResponseBase:
        """Sum tokens and cost of the model calls that started in a period, by day, task, model or metadata.

        Calls of all attempts are included. A cost that is not known is null, and its tokens are `unpriced_tokens`.
        Groups of metadata require the monitor permission, or the setting `EXPOSE_METADATA`. Parameters of the form
        `metadata.<key>=<value>` filter by metadata, as in the list of activities.
        """
        given = UsageParameters.read(request, allow_metadata=True).model_dump()
        period = _period(given)
        try:
            group_expression(given["group_by"], period)
        except InvalidOption as error:
            raise invalid_parameter("group_by", str(error)) from None
        self._check_group(given["group_by"])
        report = usage_report(_filtered(self.activities, request), period, given["group_by"])
        wants_csv = given["format"] == "csv" or (given["format"] is None and prefers_csv(request))
        if not wants_csv:
            return Response(report.model_dump(mode="json", by_alias=True), headers={"Vary": "Accept"})
        response = HttpResponse(usage_csv(report), content_type=f"{CSV}; charset=utf-8")
        response["Content-Disposition"] = f'attachment; filename="usage-{report.first}-{report.last}.csv"'
        patch_vary_headers(response, ["Accept"])
        return response

    def _check_group(self, group_by: str) -> None:
        """Raise 403 for groups of metadata that the user may not read."""
        if group_by.startswith(METADATA) and not (conf.EXPOSE_METADATA or self.monitors):
            raise PermissionDenied(_("Metadata requires the monitor permission."))


class ExpensiveRunsView(AgentView):
    """The most expensive of the visible activities."""

    permission_classes = [MayView]

    @operation(
        "list_expensive_runs",
        {200: ExpensiveRunsSchema},
        errors=[400],
        parameters=lambda: query_parameters(RunsParameters),
    )
    def get(self, request: Request) -> Response:
        """List the activities whose calls in a period cost most, with what has made them expensive.

        Parameters of the form `metadata.<key>=<value>` filter by metadata, as in the list of activities.
        """
        given = RunsParameters.read(request, allow_metadata=True).model_dump()
        period = _period(given)
        activities = _filtered(self.activities, request)
        found = expensive_runs(activities, calls_of(activities, period), given["limit"])
        listed = ExpensiveRunsSchema(
            first=period.first, last=period.last, time_zone=str(period.zone), runs=[run for _activity, run in found]
        )
        return Response(listed.model_dump(mode="json", by_alias=True))


class ActivityUsageView(AgentView):
    """The usage of an activity with its children."""

    permission_classes = [MayView]

    @operation("get_activity_usage", {200: ActivityUsageSchema}, errors=[400, 404])
    def get(self, request: Request, agent_id: str) -> Response:
        """Sum tokens and cost of an activity, its visible children, their children and all attempts, by model."""
        NoParameters.read(request)
        activity = self.find(agent_id, self.activities.only("pk", "metadata"))
        totals, models = tree_usage(activity.pk, self.activities)
        return Response(ActivityUsageSchema(totals=totals, models=models).model_dump(mode="json"))


def prefers_csv(request: Request) -> bool:
    """Return whether the Accept header names CSV and not JSON."""
    accepted = {part.partition(";")[0].strip().lower() for part in request.META.get("HTTP_ACCEPT", "").split(",")}
    return CSV in accepted and "application/json" not in accepted


def _period(given: Mapping[str, Any]) -> Period:
    try:
        zone = None if given["time_zone"] is None else zone_of(given["time_zone"])
    except InvalidOption as error:
        raise invalid_parameter("time_zone", str(error)) from None
    try:
        return Period.of(given["from"], given["to"], zone)
    except InvalidOption as error:
        raise invalid_parameter("from", str(error)) from None


def _filtered(activities: ActivityQuerySet, request: Request) -> ActivityQuerySet:
    for key, values in metadata_of(request).items():
        activities = activities.for_metadata_text(key, *values)
    return activities
