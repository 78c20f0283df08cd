"""Server-sent events of one activity, for clients without websockets. `Last-Event-ID` resumes a stream."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Hashable
from contextlib import aclosing
from copy import copy
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.core.handlers.asgi import ASGIRequest
from django.db import Error as DatabaseUnavailable
from django.http import HttpResponseBase, StreamingHttpResponse
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework.authentication import SessionAuthentication
from rest_framework.exceptions import APIException, Throttled, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import BaseThrottle

from ..conf import conf
from ..exceptions import ActivityNotFound
from ..live import follow_activity, messages
from ..live.connections import (
    ConnectionSlot,
    holder_of,
    live_connections,
    reload_session,
    reload_user,
    too_many_connections,
)
from ..live.messages import EVENT_TYPES, Message
from ..logs import ThrottledLogger
from ..models import FINISHED, Activity, ActivityLog
from ..parsing import parse_digits
from ..queues.live import is_stream_id
from ..threads import in_thread
from .base import AgentView, FirstRenderer
from .errors import NeedsAsgi
from .openapi import operation
from .permissions import MayView

logger = logging.getLogger(__name__)
throttled = ThrottledLogger(logger)

RECONNECT_DELAY = 2_000  # milliseconds until a disconnected client connects again
RETRY_AFTER = 30  # seconds, for a user with too many connections
MAX_FAILED_CHECKS = 3  # in a row, while the database is unavailable
_SCHEMA = {
    "type": "string",
    "pattern": "^[0-9]{1,18}(/[0-9]{1,18}-[0-9]{1,18})?$",
    "description": "The id of the last received event.",
}

_EVENT = {
    "type": "object",
    "description": "One event of the stream; `data` is the JSON of a websocket message without `seq`.",
    "properties": {
        "id": {"type": "string"},
        "event": {"type": "string", "enum": list(EVENT_TYPES)},
        "data": {"type": "string"},
    },
}


@dataclass
class Position:
    """The position of a client: the last log line and the last piece of streamed text. Its text is an event id."""

    log_id: int | None = None
    stream_id: str | None = None

    @classmethod
    def of(cls, request: Request) -> Position:
        """Return the position in the request. Raises 400 if it is not an event id."""
        given = request.headers.get("Last-Event-ID")
        if given is None:
            return cls()
        log_id, slash, stream_id = given.partition("/")
        position = cls(parse_digits(log_id), stream_id or None)
        if position.log_id is None or bool(slash) != is_stream_id(stream_id):
            raise ValidationError({"Last-Event-ID": [_("%(value)r is not an event id.") % {"value": given[:80]}]})
        return position

    def advance(self, message: Message) -> None:
        """Move to the position after `message`."""
        if "last_log_id" in message:
            self.log_id = message["last_log_id"]
        if "stream_id" in message:
            self.stream_id = message["stream_id"]

    def __str__(self) -> str:
        return f"{self.log_id or 0}/{self.stream_id}" if self.stream_id else str(self.log_id or 0)


class ActivityEventsView(AgentView):
    """Live updates of one activity.

    The view itself is synchronous, so that every authentication works, and returns before the first event: an
    asynchronous iterator in the server's event loop sends the stream.
    """

    permission_classes = [MayView]
    content_negotiation_class = FirstRenderer

    @operation(
        "follow_activity",
        {
            (200, "text/event-stream"): _EVENT,
            204: OpenApiResponse(None, "The activity has finished, and you have all of its log."),
        },
        errors=[400, 404, 501],
        parameters=lambda: [OpenApiParameter("Last-Event-ID", _SCHEMA, OpenApiParameter.HEADER)],
    )
    def get(self, request: Request, agent_id: str) -> HttpResponseBase:
        """Stream `snapshot`, then changes and streamed text, with log ids as event ids, until the activity ends.

        Needs an ASGI server. 204 makes a browser's EventSource stop connecting.
        """
        position = Position.of(request)
        found = self.find(agent_id, self.activities.only("agent_id", "metadata", "status"))
        if not isinstance(request._request, ASGIRequest):
            raise NeedsAsgi
        if position.log_id is not None and _is_up_to_date(found, position.log_id):
            return Response(status=204)
        holder = holder_of(request.user, BaseThrottle().get_ident(request))
        if live_connections.is_reached(holder, conf.LIVE_MAX_CONNECTIONS):
            raise Throttled(RETRY_AFTER, too_many_connections(conf.LIVE_MAX_CONNECTIONS))
        slot = ConnectionSlot(live_connections, holder)
        response = StreamingHttpResponse(
            _events(found.agent_id, position, Viewer(self, request), holder, slot),
            content_type="text/event-stream",
            # Proxies must not buffer events.
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )
        # Python closes an unfinished stream only some time later.
        response._resource_closers.append(slot.release)  # type: ignore[attr-defined]  # the stubs lack it
        return response

    def handle_exception(self, exc: Exception) -> Response:
        """Answer 501 without logging an error for each request: the server lacks support, but nothing has failed."""
        response = super().handle_exception(exc)
        if isinstance(exc, NeedsAsgi):
            throttled.warn("An event stream was requested, but needs an ASGI server.", exc)
            vars(response)["_has_been_logged"] = True  # where Django's `log_response` looks
        return response


class Viewer:
    """The user of a stream. Their permissions are checked from time to time as for a new request."""

    def __init__(self, view: ActivityEventsView, request: Request) -> None:
        self._view = view
        self._request = request
        self._known: Any = request.user
        self._by_session = isinstance(request.successful_authenticator, SessionAuthentication | None)
        self._failed = 0
        self.sees_internals = view.monitors

    async def is_allowed(self) -> bool:
        """Return whether they may still see the activity. While the database is unavailable, three checks may fail."""
        try:
            allowed = await in_thread(self._check)
            self._failed = 0
        except DatabaseUnavailable as error:
            self._failed += 1
            throttled.warn("Could not check the permissions of event streams.", error)
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
                user = reload_user(user, None)  # without cached permissions
                view.request.user = user
            if getattr(user, "pk", None) != getattr(self._known, "pk", None):
                return False
            view.check_permissions(view.request)
            view.find(view.kwargs["agent_id"], view.activities.only("agent_id", "metadata"))
        except (ActivityNotFound, APIException):
            return False
        self.sees_internals = view.monitors
        return True


async def _events(
    agent_id: UUID, position: Position, viewer: Viewer, holder: Hashable, slot: ConnectionSlot
) -> AsyncIterator[bytes]:
    if not slot.acquire(conf.LIVE_MAX_CONNECTIONS):
        return  # too many concurrent requests; the next attempt is answered with 429
    stream = follow_activity(
        agent_id,
        after=position.log_id,
        stream_after=position.stream_id,
        allowed=viewer.is_allowed,
        holder=holder,
    )
    try:
        yield f"retry: {RECONNECT_DELAY}\n\n".encode()
        async with aclosing(stream):
            async for message in stream:
                position.advance(message)
                yield messages.to_event(message if viewer.sees_internals else messages.redacted(message), position)
    finally:
        slot.release()


def _is_up_to_date(found: Activity, log_id: int) -> bool:
    return found.status in FINISHED and not ActivityLog.objects.filter(activity=found, id__gt=log_id).exists()
