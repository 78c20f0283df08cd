"""The channel layer, where the project has one that crosses processes; Channels is imported only then.

Publisher and hub both ask here. Without such a layer, hints stay in the process and followers poll.
"""

from __future__ import annotations

from typing import Any, Protocol

from django.conf import settings

ALIAS = "default"
IN_MEMORY = "channels.layers.InMemoryChannelLayer"


class ChannelLayer(Protocol):
    """What we use of a channel layer. It must be used in one event loop only, or tell loops apart itself."""

    async def new_channel(self) -> str: ...
    async def receive(self, channel: str) -> dict[str, Any]: ...
    async def group_add(self, group: str, channel: str) -> None: ...
    async def group_discard(self, group: str, channel: str) -> None: ...
    async def group_send(self, group: str, message: dict[str, Any]) -> None: ...


def shared_layer() -> ChannelLayer | None:
    """Return the default channel layer, or None if there is none that crosses processes."""
    backend = configured_backend()
    if backend in ("", IN_MEMORY):
        return None
    from channels.layers import get_channel_layer

    layer: ChannelLayer | None = get_channel_layer(ALIAS)
    return layer


def configured_backend() -> str:
    """Return the dotted path of the default channel layer, or "" if none is configured."""
    layers: dict[str, dict[str, Any]] = getattr(settings, "CHANNEL_LAYERS", None) or {}
    return str(layers.get(ALIAS, {}).get("BACKEND", ""))
