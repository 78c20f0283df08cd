"""Websocket routes, for the `URLRouter` of a project's asgi.py (see docs/live.md)."""

from __future__ import annotations

from django.urls import URLPattern, path

try:
    from .websocket.consumers import ActivityConsumer, FeedConsumer
except ModuleNotFoundError as error:
    if error.name is None or error.name.partition(".")[0] not in ("channels", "channels_redis"):
        raise
    raise ImportError(
        f"Websockets need Channels: pip install 'django-agentexec[live]' ({error})", name=error.name
    ) from error

websocket_urlpatterns: list[URLPattern] = [
    path("ws/agents/activities/", FeedConsumer.as_asgi()),
    path("ws/agents/activities/<uuid:agent_id>/", ActivityConsumer.as_asgi()),
]
