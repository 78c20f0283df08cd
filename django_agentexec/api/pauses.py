"""Pauses over REST: the list, and pause and resume of queues, tasks and tenants."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.utils.translation import gettext as _
from pydantic import BaseModel, ConfigDict
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request
from rest_framework.response import Response

from ..concurrency import pause, resume
from ..concurrency.commands import target_note, validate_target
from ..exceptions import InvalidOption
from ..models import Pause, PauseScope
from ..policy import get_policy
from ..redaction import public_actor
from .base import AgentView
from .bodies import BodySchema, JsonTextParser, read_body
from .errors import Unprocessable
from .openapi import operation
from .parameters import NoParameters
from .permissions import MayPause


class ResumeRequestBody(BaseModel):
    """What to resume."""

    model_config = ConfigDict(extra="forbid")

    scope: PauseScope
    name: str
    """The name of a queue or task, or a tenant's metadata key and value such as `organization_id=7`."""


class PauseRequestBody(ResumeRequestBody):
    """What to pause."""

    reason: str = ""
    """Shown with the pause."""


class PauseSchema(BaseModel):
    """A pause."""

    model_config = ConfigDict(from_attributes=True)

    scope: PauseScope
    name: str
    reason: str
    actor: str | None
    """The primary key of the user who paused it, or a terminal; null for code."""
    created_at: datetime
    warning: str | None = None
    """Why the pause may have no effect: no task of the web process has this name; null otherwise. With the monitor
    permission it has similar names."""


class PauseView(AgentView):
    """A view of the pauses of what the user may pause."""

    permission_classes = [MayPause]
    parser_classes = [JsonTextParser]
    schema = BodySchema()
    body: type[ResumeRequestBody] = ResumeRequestBody

    def parse(self, request: Request) -> Any:
        """Return the body; raise 400 or 422 if it is invalid, 403 if the user may not pause this.

        The policy of a project is asked only about names that exist: `key=value` for a tenant.
        """
        given = read_body(request, self.body)
        try:
            validate_target(given.scope, given.name)
        except InvalidOption as error:
            raise Unprocessable(str(error)) from error
        if not get_policy().may_pause(request.user, given.scope, given.name):
            raise PermissionDenied(_("You may not pause or resume this."))
        return given

    def check_resume(self, given: ResumeRequestBody) -> None:
        """Raise 403 if the user may not end the pause, such as one that staff set."""
        policy = get_policy()
        for row in Pause.objects.filter(scope=given.scope, name=given.name):
            if not policy.may_resume(self.request.user, row):
                raise PermissionDenied(_("You may not end this pause."))

    def shown(self) -> Response:
        """Return the pauses of what the user may pause."""
        may_pause = get_policy().may_pause
        rows = [row for row in Pause.objects.all() if may_pause(self.request.user, row.scope, row.name)]
        monitors = self.monitors
        return Response([_shown(row, monitors=monitors).model_dump(mode="json") for row in rows])


def _shown(row: Pause, *, monitors: bool) -> PauseSchema:
    shown = PauseSchema.model_validate(row)
    if shown.actor and not monitors:
        shown.actor = public_actor(shown.actor)
    shown.warning = target_note(row.scope, row.name, names_others=monitors) or None
    return shown


class PauseListView(PauseView):
    """The pauses."""

    permission_classes = [MayPause]
    body = PauseRequestBody

    @operation("list_pauses", {200: list[PauseSchema]}, errors=[400])
    def get(self, request: Request) -> Response:
        """List the paused queues, tasks and tenants that the user may pause."""
        NoParameters.read(request)
        return self.shown()

    @operation("pause", {200: list[PauseSchema]}, errors=[400, 413, 415, 422])
    def post(self, request: Request) -> Response:
        """Let no waiting activity of a queue, task or tenant start, and return the pauses.

        Running activities continue. A second pause changes nothing.
        """
        given = self.parse(request)
        try:
            pause(given.scope, given.name, reason=given.reason, actor=str(request.user.pk))
        except InvalidOption as error:
            raise Unprocessable(str(error)) from error
        return self.shown()


class ResumeView(PauseView):
    """The end of a pause."""

    permission_classes = [MayPause]

    @operation("resume", {200: list[PauseSchema]}, errors=[400, 413, 415, 422])
    def post(self, request: Request) -> Response:
        """Let the activities of a paused queue, task or tenant start again, and return the remaining pauses."""
        given = self.parse(request)
        self.check_resume(given)
        resume(given.scope, given.name)
        return self.shown()
