"""The channel layer: topics that can be followed, the change notices on them, and the subscriber of one event loop.

A change notice names the activities that changed, not their content: subscribers read the database, which is the source
of truth. A layer may therefore drop, repeat or reorder notices, and no text of a run passes through it. An unavailable
layer only delays updates.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

from django.conf import settings

from ..logs import ThrottledLogger
from ..parsing import MAX_INT64

ALIAS = "default"
IN_MEMORY = "channels.layers.InMemoryChannelLayer"

SUBSCRIBE_TIMEOUT = 2.0  # seconds that a new subscription waits for the layer
RETRY_INTERVAL = 1.0  # seconds between two attempts to reach an unavailable layer
REFRESH_INTERVAL = 3600.0  # layers that store groups drop their members after a day
MAX_CANCELLATIONS = 3
CANCELLATION_TIMEOUT = 0.5  # seconds

MESSAGE_TYPE = "agentexec.hint"  # on the channel layer; other releases read it during a deploy
_FEED = "agentexec.feed."
# Every channel layer accepts these names for a group, less the prefix.
_LAYER_NAME = re.compile(r"[A-Za-z0-9_.-]{1,80}")

logger = logging.getLogger(__name__)
throttled = ThrottledLogger(logger)


# Topics and notices


def activity_topic(agent_id: UUID) -> str:
    """Return the topic of one activity."""
    return f"agentexec.activity.{agent_id.hex}"


def feed_topic(audience: str) -> str:
    """Return the topic of an audience's feed; a name that a layer would refuse is replaced by its digest."""
    if not _LAYER_NAME.fullmatch(audience):
        audience = "sha256-" + hashlib.sha256(audience.encode()).hexdigest()
    return _FEED + audience


def feed_topics(topics: Iterable[str]) -> frozenset[str]:
    """Return the topics of feeds among `topics`."""
    return frozenset(topic for topic in topics if topic.startswith(_FEED))


@dataclass(frozen=True, slots=True)
class ChangeNotice:
    """The changes of one topic."""

    topic: str
    changed: Mapping[UUID, int] = field(default_factory=dict)
    """Activities whose row changed, each with its newest log line that the sender knows, or 0."""
    streamed: bool = False
    """Whether the topic's activity has streamed text."""
    calls: bool = False
    """Whether calls of the topic's activity have started or ended."""

    def as_message(self) -> dict[str, Any]:
        """Return the message for the channel layer."""
        return {
            "type": MESSAGE_TYPE,
            "topic": self.topic,
            "changed": [[agent_id.hex, log_id] for agent_id, log_id in self.changed.items()],
            "streamed": self.streamed,
            "calls": self.calls,
        }

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> ChangeNotice:
        """Parse a message of the channel layer. Raises `KeyError`, `TypeError` or `ValueError` for other messages."""
        changed = {UUID(str(agent_id)): _log_id(log_id) for agent_id, log_id in message["changed"]}
        return cls(str(message["topic"]), changed, bool(message["streamed"]), bool(message.get("calls")))


def _log_id(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_INT64:
        raise ValueError(f"{value!r} is not the id of a log line.")
    return value


# The layer


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
    """A single channel that is a member of many groups: passes the change notices of its topics to `on_notice`.

    `subscribe` gives up after a short timeout; the hub polls the database until `resubscribe` has succeeded.
    """

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


async def end_tasks(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel `tasks` and wait for their end.

    Cancels several times, since the clean-up of a channel layer may replace the cancellation by another error.
    """
    running = {task for task in tasks if not task.done()}
    for _ in range(MAX_CANCELLATIONS):
        for task in running:
            task.cancel()
        if running:
            ended, running = await asyncio.wait(running, timeout=CANCELLATION_TIMEOUT)
            for task in ended:
                task.cancelled() or task.exception()  # retrieved, so that asyncio does not log it
