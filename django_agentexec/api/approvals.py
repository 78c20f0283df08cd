"""Approvals over REST: the list, a detail, and the decisions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

from django.utils.translation import gettext as _
from pydantic import BaseModel, ConfigDict, Field
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from .. import activity, approvals
from ..conf import conf
from ..exceptions import AlreadyDecided, ApprovalNotFound
from ..models import Approval, ApprovalQuerySet, ApprovalStatus
from ..parsing import parse_id
from ..redaction import redact_internals
from ..schemas import ApprovalListSchema, ApprovalSchema
from .base import AgentView
from .bodies import BodySchema, JsonTextParser, read_body
from .errors import OtherDecision, invalid_parameter
from .openapi import operation, query_parameters
from .parameters import NoParameters, Paging
from .permissions import MayDecide, MayView
from .schemas import ErrorSchema, OtherDecisionSchema

MAX_TOOL = 200  # characters; the column's size


class ApprovalParameters(Paging):
    """The filters and the page of the list of approvals."""

    status: ApprovalStatus | None = Field(None, description="The status.")
    activity: str | None = Field(None, json_schema_extra={"format": "uuid"}, description="Id of the activity.")
    tool: str | None = Field(
        None, min_length=1, max_length=MAX_TOOL, pattern=r"^[^\u0000]*$", description="Name of the tool."
    )


class ApproveBody(BaseModel):
    """The optional body of an approval."""

    model_config = ConfigDict(extra="forbid")

    reason: str = ""
    """Stored with the decision, and logged."""
    scope: Literal["once", "run"] = "once"
    """This call, or all calls of the tool in this activity."""
    arguments: dict[str, Any] | None = None
    """Arguments with which the tool runs in place of `arguments` of the approval, with the same names and kinds."""


class RejectBody(BaseModel):
    """The optional body of a rejection."""

    model_config = ConfigDict(extra="forbid")

    reason: str = ""
    """The agent reads it."""


class AnswerBody(BaseModel):
    """The body of an answer."""

    model_config = ConfigDict(extra="forbid")

    answer: Any
    """A text or another JSON value; one of the choices if the question has any."""


class ApprovalView(AgentView):
    """A view of visible approvals."""

    permission_classes = [MayView]

    @property
    def approvals(self) -> ApprovalQuerySet:
        """The approvals of the activities that are visible to the user."""
        return Approval.objects.filter(activity__in=self.activities.order_by()).select_related("activity")

    def find_approval(self, approval_id: str) -> Approval:
        """Return a visible approval on whose activity the user has the view's permission. Raises 404, then 403."""
        try:
            found = self.approvals.filter(pk=parse_id(approval_id)).first()
        except ValueError:
            found = None
        if found is None:
            raise ApprovalNotFound(approval_id)
        self.check_object_permissions(self.request, found.activity)
        return found

    def shown(self, approval: Approval) -> dict[str, Any]:
        """Return an approval as JSON, as the user may see it."""
        data = ApprovalSchema.model_validate(approval).model_dump(mode="json")
        return data if self.monitors else redact_internals(data)


class ApprovalListView(ApprovalView):
    """The list of visible approvals."""

    permission_classes = [MayView]

    @operation(
        "list_approvals",
        {200: ApprovalListSchema},
        errors=[400, 404],
        parameters=lambda: query_parameters(ApprovalParameters),
    )
    def get(self, request: Request) -> Response:
        """List approvals in pages: with `status=pending` the first to expire first, otherwise the newest first."""
        given = ApprovalParameters.read(request)
        found = self._filtered(given)
        start = (given.page - 1) * given.page_size
        if start >= conf.COUNT_LIMIT:
            raise NotFound(_("Page %(page)s is beyond the approvals that are counted.") % {"page": given.page})
        counted = found.order_by()[: conf.COUNT_LIMIT + 1].count()
        rows = list(found[start : start + given.page_size])
        return Response(
            {
                "items": [self.shown(row) for row in rows],
                "total": min(counted, conf.COUNT_LIMIT),
                "total_is_bounded": counted > conf.COUNT_LIMIT,
                "page": given.page,
                "page_size": given.page_size,
            }
        )

    def _filtered(self, given: ApprovalParameters) -> ApprovalQuerySet:
        found = self.approvals.order_by("-id")
        if given.status is not None:
            is_pending = given.status == ApprovalStatus.PENDING
            found = found.pending() if is_pending else found.filter(status=given.status)
        if given.activity is not None:
            try:
                found = found.filter(activity_id=parse_id(given.activity))
            except ValueError:
                raise invalid_parameter("activity", _("Give the id of an activity.")) from None
        return found if given.tool is None else found.filter(tool=given.tool)


class ApprovalDetailView(ApprovalView):
    """An approval."""

    permission_classes = [MayView]

    @operation("get_approval", {200: ApprovalSchema}, errors=[400, 404])
    def get(self, request: Request, approval_id: str) -> Response:
        """Return an approval."""
        NoParameters.read(request)
        return Response(self.shown(self.find_approval(approval_id)))


class DecisionView(ApprovalView):
    """A decision about an approval."""

    permission_classes = [MayDecide]
    parser_classes = [JsonTextParser]
    schema = BodySchema()
    body: ClassVar[type[BaseModel]]

    def parse(self, request: Request) -> Any:
        """Return the body; raise 400 if it is invalid."""
        return read_body(request, self.body)

    def decide(self, found: Approval, decide: Callable[[Approval], Approval]) -> Response:
        """Decide, and return the approval; raise 409 with an earlier, different decision."""
        try:
            with activity.acting_as(self.request.user):
                decided = decide(found)
        except AlreadyDecided as refusal:
            refusal.approval.activity = found.activity
            detail = _("Another decision was made before; yours was not applied.")
            if refusal.differs_in_arguments:
                detail = _("The call was approved before with other arguments; your decision was not applied.")
            raise OtherDecision(detail, self.shown(refusal.approval)) from refusal
        decided.activity = found.activity
        return Response(self.shown(decided))


_RESPONSES: dict[int | tuple[int, str], Any] = {200: ApprovalSchema, 409: OtherDecisionSchema, 410: ErrorSchema}
_ERRORS = [400, 404, 413, 415]


class ApproveView(DecisionView):
    """The approval of a tool call."""

    permission_classes = [MayDecide]
    body = ApproveBody

    @operation("approve", _RESPONSES, errors=_ERRORS)
    def post(self, request: Request, approval_id: str) -> Response:
        """Approve a tool call: the tool runs, with changed `arguments` if the body has any.

        Returns 200 for the same decision again, 409 for a different decision, 410 if the approval is void.
        """
        target, given = self.find_approval(approval_id), self.parse(request)
        return self.decide(
            target,
            lambda found: approvals.approve(
                found.id, reason=given.reason, scope=given.scope, arguments=given.arguments
            ),
        )


class RejectView(DecisionView):
    """The rejection of a tool call."""

    permission_classes = [MayDecide]
    body = RejectBody

    @operation("reject", _RESPONSES, errors=_ERRORS)
    def post(self, request: Request, approval_id: str) -> Response:
        """Reject a tool call, which then never runs; the agent reads the reason. Responses as of an approval."""
        target, given = self.find_approval(approval_id), self.parse(request)
        return self.decide(target, lambda found: approvals.reject(found.id, reason=given.reason))


class AnswerView(DecisionView):
    """The answer to a question, or the output of a call in doubt."""

    permission_classes = [MayDecide]
    body = AnswerBody

    @operation("answer", _RESPONSES, errors=_ERRORS)
    def post(self, request: Request, approval_id: str) -> Response:
        """Answer a question, or state the output of a call whose outcome is unknown. Responses as of an approval."""
        target, given = self.find_approval(approval_id), self.parse(request)
        return self.decide(target, lambda found: approvals.answer(found.id, given.answer))
