"""Server-sent events of one activity, for clients without websockets: the same messages, resumed by Last-Event-ID."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any
from uuid import UUID

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpResponse, HttpResponseBase, StreamingHttpResponse
from drf_spectacular.utils import OpenApiParameter
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

from ..models import FINISHED, Activity
from .base import AgentView, FirstRenderer
from .errors import NeedsAsgi
from .openapi import operation
from .parameters import LARGEST_ID
from .permissions import MayView
from .privacy import for_strangers

RECONNECT = 2_000  # milliseconds until a client that was cut off comes back
_ID = {"type": "string", "pattern": "^[0-9]{1,18}$", "description": "The last log id that you have."}


class ActivityEventsView(AgentView):
    """What happens to an activity, as it happens.

    The view itself is synchronous, so that every authentication works, and ends before the first event: what
    streams is an asynchronous iterator in the server's event loop.
    """

    permission_classes = [MayView]
    content_negotiation_class = FirstRenderer

    @operation(
        "follow_activity",
        {(200, "text/event-stream"): {"type": "string"}, 204: {"description": "It is over, and you know all."}},
        errors=[400, 404, 501],
        parameters=lambda: [OpenApiParameter("Last-Event-ID", _ID, OpenApiParameter.HEADER)],
    )
    def get(self, request: Request, agent_id: str) -> HttpResponseBase:
        """Stream `snapshot`, then `activity` and `delta` events, with log ids as event ids, until it is over.

        Needs an ASGI server. 204 tells a browser's EventSource not to come back.
        """
        after = _last_event_id(request)
        found = self.find(agent_id, self.activities.only("agent_id", "metadata", "status"))
        if not isinstance(request._request, ASGIRequest):
            raise NeedsAsgi
        if after is not None and _knows_all(found, after):
            return HttpResponse(status=204)
        stream = _events(found.agent_id, after, shows_servers=self.monitors)
        return StreamingHttpResponse(
            stream,
            content_type="text/event-stream",
            # Proxies must pass each event on at once.
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )


async def _events(agent_id: UUID, after: int | None, *, shows_servers: bool) -> AsyncIterator[bytes]:
    from ..events import follow_activity

    yield f"retry: {RECONNECT}\n\n".encode()
    messages = follow_activity(agent_id, after=after)
    async with aclosing(messages):
        async for message in messages:
            yield _event(message if shows_servers else for_strangers(message))
            if message.get("activity", {}).get("status") in FINISHED:
                return


def _event(message: dict[str, Any]) -> bytes:
    """Return a message as one event; a ping is a comment, which keeps the connection alive and nothing else."""
    if message["type"] == "ping":
        return b": ping\n\n"
    lines = [f"event: {message['type']}", f"data: {json.dumps(message, ensure_ascii=False)}"]
    if "last_log_id" in message:
        lines.insert(0, f"id: {message['last_log_id']}")
    return ("\n".join(lines) + "\n\n").encode()


def _last_event_id(request: Request) -> int | None:
    given = request.headers.get("Last-Event-ID")
    if not given:
        return None
    if not (given.isascii() and given.isdigit() and len(given) <= 19 and int(given) <= LARGEST_ID):
        raise ValidationError({"Last-Event-ID": [f"{given[:80]!r} is no log id."]})
    return int(given)


def _knows_all(found: Activity, after: int) -> bool:
    return found.status in FINISHED and not found.logs.filter(id__gt=after).exists()  # type: ignore[attr-defined]  # the related manager
