"""Server-sent events of one activity, for clients without websockets: the same messages, resumed by Last-Event-ID."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Hashable
from contextlib import aclosing
from copy import copy
from dataclasses import dataclass
from typing import Any, cast
from uuid import UUID

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.core.handlers.asgi import ASGIRequest
from django.db import Error as DatabaseUnavailable
from django.http import HttpResponseBase, StreamingHttpResponse
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework.authentication import SessionAuthentication
from rest_framework.exceptions import APIException, Throttled, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import BaseThrottle

from ..conf import conf
from ..exceptions import ActivityNotFound
from ..live import follow_activity
from ..live.credentials import reload_session, reload_user
from ..live.limits import Place, holder_of, live_connections
from ..live.threads import in_thread
from ..models import FINISHED, Activity, ActivityLog
from ..parsing import parse_digits
from ..queues.live import is_stream_id
from ..redaction import redact_internals
from ..throttled_logging import ThrottledLogger
from .base import AgentView, FirstRenderer
from .errors import NeedsAsgi
from .openapi import operation
from .permissions import MayView

logger = logging.getLogger(__name__)
throttled = ThrottledLogger(logger)

RECONNECT = 2_000  # milliseconds until a client that was cut off comes back
RETRY_AFTER = 30  # seconds, for a user with too many connections
MAX_FAILED_CHECKS = 3  # in a row, while the database is unavailable
_SCHEMA = {
    "type": "string",
    "pattern": "^[0-9]{1,19}(/[0-9]{1,19}-[0-9]{1,19})?$",
    "description": "The id of the last event you have.",
}

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
        log_id, slash, stream_id = given.partition("/")
        position = cls(parse_digits(log_id), stream_id or None)
        if position.log_id is None or bool(slash) != is_stream_id(stream_id):
            raise ValidationError({"Last-Event-ID": [f"{given[:80]!r} is no event's id."]})
        return position

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
        holder = holder_of(request.user, BaseThrottle().get_ident(request))
        if live_connections.is_reached(holder, conf.LIVE_MAX_CONNECTIONS):
            raise Throttled(RETRY_AFTER, f"You have {conf.LIVE_MAX_CONNECTIONS} live connections; close others first.")
        place = Place(live_connections, holder)
        response = StreamingHttpResponse(
            _events(found.agent_id, position, Viewer(self, request), holder, place),
            content_type="text/event-stream",
            # Proxies must pass each event on at once.
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )
        # A stream that is not read to its end is closed by Python, some time later.
        response._resource_closers.append(place.give_back)  # type: ignore[attr-defined]  # the stubs lack it
        return response

    def handle_exception(self, exc: Exception) -> Response:
        """Answer 501 without an error in the log for each request: it is the server's kind, and nothing has failed."""
        response = super().handle_exception(exc)
        if isinstance(exc, NeedsAsgi):
            throttled.warn("An event stream was requested, but needs an ASGI server.", exc)
            vars(response)["_has_been_logged"] = True  # where Django's `log_response` looks
        return response


class Viewer:
    """Who reads a stream: checked from time to time as a new request with the same credentials would be."""

    def __init__(self, view: ActivityEventsView, request: Request) -> None:
        self._view = view
        self._request = request
        self._known: Any = request.user
        self._by_session = isinstance(request.successful_authenticator, SessionAuthentication | None)
        self._failed = 0
        self.shows_servers = view.monitors

    async def may_go_on(self) -> bool:
        """Whether they may still see the activity. While the database is unavailable: three times more."""
        try:
            allowed = await in_thread(self._check)
            self._failed = 0
        except DatabaseUnavailable as error:
            self._failed += 1
            throttled.warn("The permissions of event streams cannot be checked at present.", error)
            return self._failed < MAX_FAILED_CHECKS
        return allowed

    def _check(self) -> bool:
        view, request = self._view, copy(self._request._request)
        session = getattr(request, "session", None)
        chosen: Any = reload_user(self._known, session) if self._by_session else AnonymousUser()
        for name in ("_cached_user", "_acached_user"):
            vars(request).pop(name, None)
        if session is not None:
            request.session = reload_session(session)
        request.user = chosen
        view.request = view.initialize_request(request, *view.args, **view.kwargs)
        try:
            user: Any = view.request.user  # authenticates: a token may have been revoked, or have expired
            if isinstance(user, get_user_model()) and user is self._known:
                user = reload_user(user, None)  # without the permissions that it remembers
                view.request.user = user
            if getattr(user, "pk", None) != getattr(self._known, "pk", None):
                return False
            view.check_permissions(view.request)
            view.find(view.kwargs["agent_id"], view.activities.only("agent_id", "metadata"))
        except (ActivityNotFound, APIException):
            return False
        self.shows_servers = view.monitors
        return True


async def _events(
    agent_id: UUID, position: Position, viewer: Viewer, holder: Hashable, place: Place
) -> AsyncIterator[bytes]:
    if not place.take(conf.LIVE_MAX_CONNECTIONS):
        return  # many began in one moment; the next try is answered with 429
    try:
        yield f"retry: {RECONNECT}\n\n".encode()
        messages = _messages(agent_id, position, viewer, holder)
        async with aclosing(cast("AsyncGenerator[dict[str, Any]]", messages)):
            async for message in messages:
                position.move(message)
                yield _event(message if viewer.shows_servers else redact_internals(message), position)
                if message.get("activity", {}).get("status") in FINISHED and not message.get("has_more"):
                    return
    finally:
        place.give_back()


def _messages(agent_id: UUID, position: Position, viewer: Viewer, holder: Hashable) -> AsyncIterator[dict[str, Any]]:
    return follow_activity(
        agent_id,
        after=position.log_id,
        stream_after=position.stream_id,
        allowed=viewer.may_go_on,
        holder=holder,
    )


def _event(message: dict[str, Any], position: Position) -> bytes:
    """Return a message as one event; a ping is a comment, which keeps the connection alive and nothing else."""
    if message["type"] == "ping":
        return b": ping\n\n"
    data = json.dumps(message, ensure_ascii=False)
    return f"id: {position}\nevent: {message['type']}\ndata: {data}\n\n".encode()


def _knows_all(found: Activity, log_id: int) -> bool:
    return found.status in FINISHED and not ActivityLog.objects.filter(activity=found, id__gt=log_id).exists()
