"""Server-sent events of one activity, for clients without websockets: the same messages, resumed by Last-Event-ID."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, cast
from uuid import UUID

from django.contrib.auth import get_user_model
from django.core.exceptions import ObjectDoesNotExist
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpResponseBase, StreamingHttpResponse
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework.exceptions import APIException, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from ..events import follow_activity
from ..events.follow import Allowed
from ..events.threads import in_thread
from ..exceptions import ActivityNotFound
from ..models import FINISHED, Activity, ActivityLog
from ..privacy import for_strangers
from .base import AgentView, FirstRenderer
from .errors import NeedsAsgi
from .openapi import operation
from .permissions import MayView

RECONNECT = 2_000  # milliseconds until a client that was cut off comes back
_EVENT_ID = re.compile(r"([0-9]{1,18})(?:/([0-9]{1,20}-[0-9]{1,20}))?", re.ASCII)
_SCHEMA = {"type": "string", "pattern": f"^{_EVENT_ID.pattern}$", "description": "The id of the last event you have."}

_EVENT = {
    "type": "object",
    "description": "One event of the stream; `data` is JSON, as a websocket has it.",
    "properties": {
        "id": {"type": "string"},
        "event": {"type": "string", "enum": ["snapshot", "activity", "delta", "gap", "text", "retract", "error"]},
        "data": {"type": "string"},
    },
}


@dataclass
class Position:
    """How far a client is: the log line, and the piece of streamed text. As text it is an event's id."""

    log_id: int | None = None
    stream_id: str | None = None

    @classmethod
    def of(cls, request: Request) -> Position:
        """Return where the request wants to go on. Raises 400 if that is no event's id."""
        given = request.headers.get("Last-Event-ID")
        if given is None:
            return cls()
        found = _EVENT_ID.fullmatch(given)
        if found is None:
            raise ValidationError({"Last-Event-ID": [f"{given[:80]!r} is no event's id."]})
        return cls(int(found[1]), found[2])

    def move(self, message: dict[str, Any]) -> None:
        """Take note of what the client has got."""
        self.log_id = message.get("last_log_id", self.log_id)
        self.stream_id = message.get("stream_id", self.stream_id)

    def __str__(self) -> str:
        return f"{self.log_id or 0}/{self.stream_id}" if self.stream_id else str(self.log_id or 0)


class ActivityEventsView(AgentView):
    """What happens to an activity, as it happens.

    The view itself is synchronous, so that every authentication works, and ends before the first event: what
    streams is an asynchronous iterator in the server's event loop.
    """

    permission_classes = [MayView]
    content_negotiation_class = FirstRenderer

    @operation(
        "follow_activity",
        {(200, "text/event-stream"): _EVENT, 204: OpenApiResponse(None, "It is over, and you know all.")},
        errors=[400, 404, 501],
        parameters=lambda: [OpenApiParameter("Last-Event-ID", _SCHEMA, OpenApiParameter.HEADER)],
    )
    def get(self, request: Request, agent_id: str) -> HttpResponseBase:
        """Stream `snapshot`, then changes and streamed text, with log ids as event ids, until it is over.

        Needs an ASGI server. 204 tells a browser's EventSource not to come back.
        """
        position = Position.of(request)
        found = self.find(agent_id, self.activities.only("agent_id", "metadata", "status"))
        if not isinstance(request._request, ASGIRequest):
            raise NeedsAsgi
        if position.log_id is not None and _knows_all(found, position.log_id):
            return Response(status=204)
        return StreamingHttpResponse(
            _events(found.agent_id, position, partial(in_thread, self._may_go_on), shows_servers=self.monitors),
            content_type="text/event-stream",
            # Proxies must pass each event on at once.
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )

    def _may_go_on(self) -> bool:
        """Whether the caller may still see it; asked from time to time, with the user as they are by then."""
        try:
            if isinstance(user := self.request.user, get_user_model()):
                self.request.user = get_user_model()._default_manager.get(pk=user.pk)  # without cached permissions
            self.find(self.kwargs["agent_id"], self.activities.only("agent_id", "metadata"))
        except (ObjectDoesNotExist, ActivityNotFound, APIException):
            return False
        return True


async def _events(agent_id: UUID, position: Position, allowed: Allowed, *, shows_servers: bool) -> AsyncIterator[bytes]:
    yield f"retry: {RECONNECT}\n\n".encode()
    messages = follow_activity(agent_id, after=position.log_id, stream_after=position.stream_id, allowed=allowed)
    async with aclosing(cast("AsyncGenerator[dict[str, Any]]", messages)):
        async for message in messages:
            position.move(message)
            yield _event(message if shows_servers else for_strangers(message), position)
            if message.get("activity", {}).get("status") in FINISHED and not message.get("has_more"):
                return


def _event(message: dict[str, Any], position: Position) -> bytes:
    """Return a message as one event; a ping is a comment, which keeps the connection alive and nothing else."""
    if message["type"] == "ping":
        return b": ping\n\n"
    data = json.dumps(message, ensure_ascii=False)
    return f"id: {position}\nevent: {message['type']}\ndata: {data}\n\n".encode()


def _knows_all(found: Activity, log_id: int) -> bool:
    return found.status in FINISHED and not ActivityLog.objects.filter(activity=found, id__gt=log_id).exists()
