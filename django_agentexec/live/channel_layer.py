"""One event loop's ear on the channel layer: a single channel for all of its followers, in many groups.

Made by the hub. A layer that is away costs nothing but speed: `join` gives up soon, and the hub polls
the database until `rejoin` has succeeded.
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


logger = logging.getLogger(__name__)
throttled = ThrottledLogger(logger)

JOIN_TIMEOUT = 2.0  # seconds that a new follower waits for the layer at most
PAUSE = 1.0  # seconds between two tries of a layer that is away
REFRESH = 3600.0  # layers that store groups forget them after a day


class ChannelLayerSubscriber:
    """Hears hints of the topics it has joined, and hands them to `on_hint`."""

    def __init__(self, layer: ChannelLayer, on_notice: Callable[[ChangeNotice], None]) -> None:
        self._layer = layer
        self._on_notice = on_notice
        self._channel = ""
        self._wanted: set[str] = set()
        self._joined: dict[str, float] = {}
        self._away_until = 0.0
        self._receiver: asyncio.Task[None] | None = None

    @property
    def is_up(self) -> bool:
        """Whether every wanted topic is joined, as far as is known."""
        return self._wanted <= self._joined.keys()

    async def join(self, topic: str) -> None:
        """Hear of `topic` from now on; without success, it is tried again by `rejoin`."""
        self._wanted.add(topic)
        if asyncio.get_running_loop().time() >= self._away_until:
            await self._try_to_join(topic)

    async def leave(self, topic: str) -> None:
        """Hear no more of `topic`."""
        self._wanted.discard(topic)
        if self._joined.pop(topic, None) is None:
            return
        try:
            async with asyncio.timeout(JOIN_TIMEOUT):
                await self._layer.group_discard(topic, self._channel)
        except Exception as error:  # noqa: BLE001  # whatever a layer raises; hints of it will be ignored
            throttled.warn("The channel layer fails to leave a group.", error)

    async def rejoin(self) -> list[str]:
        """Join what is wanted and not joined (or was long ago); return what is newly heard."""
        now = asyncio.get_running_loop().time()
        if now < self._away_until:
            return []
        news = []
        for topic in sorted(self._wanted):
            is_new = topic not in self._joined
            if is_new or self._joined[topic] + REFRESH < now:
                if not await self._try_to_join(topic):
                    break
                news += [topic] if is_new else []
        return news

    async def close(self) -> None:
        """Hear nothing any more."""
        for topic in list(self._joined):
            await self.leave(topic)
        if self._receiver is not None:
            await end_tasks([self._receiver])

    async def _try_to_join(self, topic: str) -> bool:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(JOIN_TIMEOUT):
                if not self._channel:
                    self._channel = await self._layer.new_channel()
                    self._receiver = loop.create_task(self._receive_for_ever())
                await self._layer.group_add(topic, self._channel)
        except Exception as error:  # noqa: BLE001  # whatever a layer raises: its followers poll meanwhile
            throttled.warn("The channel layer does not answer; live followers read the database instead.", error)
            self._away_until = loop.time() + PAUSE
            return False
        if topic not in self._wanted:  # left while it was being joined
            await self._layer.group_discard(topic, self._channel)
            return True
        self._joined[topic] = loop.time()
        return True

    async def _receive_for_ever(self) -> None:
        while True:
            try:
                message = await self._layer.receive(self._channel)
                hint = ChangeNotice.from_message(message)
            except (KeyError, ValueError, TypeError) as error:
                throttled.warn("A message of the channel layer is none of ours.", error)
                continue
            except Exception as error:  # noqa: BLE001  # whatever a layer raises
                throttled.warn("The channel layer cannot be read; live followers read the database instead.", error)
                await asyncio.sleep(PAUSE)
                continue
            self._on_notice(hint)
