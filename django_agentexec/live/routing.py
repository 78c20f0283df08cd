"""Websocket routes, for the `URLRouter` of a project's asgi.py (see docs/live.md)."""

from __future__ import annotations

from django.urls import URLPattern, path

from .websocket.consumers import ActivityConsumer, FeedConsumer

websocket_urlpatterns: list[URLPattern] = [
    path("ws/agents/activities/", FeedConsumer.as_asgi()),
    path("ws/agents/activities/<uuid:agent_id>/", ActivityConsumer.as_asgi()),
]
