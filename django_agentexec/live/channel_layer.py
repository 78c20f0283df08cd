"""Subscriber of the channel layer for one event loop: a single channel that is a member of many groups.

The hub creates it. An unavailable layer only delays updates: `subscribe` gives up after a short timeout, and the hub
polls the database until `resubscribe` has succeeded.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol

from django.conf import settings

from ..throttled_logging import ThrottledLogger
from .threads import end_tasks
from .topics import ChangeNotice

ALIAS = "default"
IN_MEMORY = "channels.layers.InMemoryChannelLayer"

SUBSCRIBE_TIMEOUT = 2.0  # seconds that a new subscription waits for the layer
RETRY_INTERVAL = 1.0  # seconds between two attempts to reach an unavailable layer
REFRESH_INTERVAL = 3600.0  # layers that store groups drop their members after a day

logger = logging.getLogger(__name__)
throttled = ThrottledLogger(logger)


class ChannelLayer(Protocol):
    """The methods of a channel layer that this package calls, all in one event loop."""

    async def new_channel(self) -> str: ...
    async def receive(self, channel: str) -> dict[str, Any]: ...
    async def group_add(self, group: str, channel: str) -> None: ...
    async def group_discard(self, group: str, channel: str) -> None: ...
    async def group_send(self, group: str, message: dict[str, Any]) -> None: ...


def shared_layer() -> ChannelLayer | None:
    """Return the default channel layer, or None if it does not exist or does not cross processes."""
    backend = configured_backend()
    if backend in ("", IN_MEMORY):
        return None
    from channels.layers import get_channel_layer  # Channels is an optional dependency

    layer: ChannelLayer | None = get_channel_layer(ALIAS)
    return layer


def configured_backend() -> str:
    """Return the dotted path of the default channel layer, or "" if none is configured."""
    layers: dict[str, dict[str, Any]] = getattr(settings, "CHANNEL_LAYERS", None) or {}
    return str(layers.get(ALIAS, {}).get("BACKEND", ""))


class ChannelLayerSubscriber:
    """Receives the change notices of its topics and passes them to `on_notice`."""

    def __init__(self, layer: ChannelLayer, on_notice: Callable[[ChangeNotice], None]) -> None:
        self._layer = layer
        self._on_notice = on_notice
        self._channel = ""
        self._topics: set[str] = set()
        self._subscribed_at: dict[str, float] = {}
        self._retry_at = 0.0
        self._receiver: asyncio.Task[None] | None = None

    @property
    def is_complete(self) -> bool:
        """Whether all topics are subscribed, as far as is known."""
        return self._topics <= self._subscribed_at.keys()

    async def subscribe(self, topic: str) -> None:
        """Receive the notices of `topic` from now on; after a failure `resubscribe` tries again."""
        self._topics.add(topic)
        if asyncio.get_running_loop().time() >= self._retry_at:
            await self._try_subscribe(topic)

    async def unsubscribe(self, topic: str) -> None:
        """Stop receiving the notices of `topic`."""
        self._topics.discard(topic)
        if self._subscribed_at.pop(topic, None) is None:
            return
        try:
            async with asyncio.timeout(SUBSCRIBE_TIMEOUT):
                await self._layer.group_discard(topic, self._channel)
        except Exception as error:  # noqa: BLE001  # any error of a layer; the hub ignores further notices of the topic
            throttled.warn("Could not leave a group of the channel layer.", error)

    async def resubscribe(self) -> None:
        """Subscribe to the topics whose subscription failed, and refresh old subscriptions."""
        now = asyncio.get_running_loop().time()
        if now < self._retry_at:
            return
        for topic in sorted(self._topics):
            is_due = topic not in self._subscribed_at or self._subscribed_at[topic] + REFRESH_INTERVAL < now
            if is_due and not await self._try_subscribe(topic):
                return

    async def close(self) -> None:
        """Unsubscribe from all topics and stop receiving."""
        for topic in list(self._subscribed_at):
            await self.unsubscribe(topic)
        if self._receiver is not None:
            await end_tasks([self._receiver])

    async def _try_subscribe(self, topic: str) -> bool:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(SUBSCRIBE_TIMEOUT):
                if not self._channel:
                    self._channel = await self._layer.new_channel()
                    self._receiver = loop.create_task(self._receive())
                await self._layer.group_add(topic, self._channel)
        except Exception as error:  # noqa: BLE001  # any error of a layer; the hub polls meanwhile
            throttled.warn("The channel layer is unavailable; live updates are read from the database instead.", error)
            self._retry_at = loop.time() + RETRY_INTERVAL
            return False
        if topic not in self._topics:  # unsubscribed in the meantime
            await self._layer.group_discard(topic, self._channel)
            return True
        self._subscribed_at[topic] = loop.time()
        return True

    async def _receive(self) -> None:
        while True:
            try:
                message = await self._layer.receive(self._channel)
                notice = ChangeNotice.from_message(message)
            except (KeyError, ValueError, TypeError) as error:
                throttled.warn("Ignored a message of the channel layer that is not a change notice.", error)
                continue
            except Exception as error:  # noqa: BLE001  # any error of a layer
                throttled.warn("Could not read the channel layer; the database is polled instead.", error)
                await asyncio.sleep(RETRY_INTERVAL)
                continue
            self._on_notice(notice)
