"""Where the admin's pages find the live feed, if the project has one."""

from __future__ import annotations

from uuid import UUID

from django.apps import apps

from ..conf import conf


def socket_path(agent_id: UUID | None = None) -> str:
    """Return the path of the feed's websocket (or of one activity's), or "" where the pages have to poll."""
    if not apps.is_installed("django_agentexec.live") or not conf.SOCKET_URL:
        return ""
    return f"{conf.SOCKET_URL.rstrip('/')}/{agent_id}/" if agent_id else conf.SOCKET_URL
