"""Topics that can be followed, and the change notices that are sent to them.

A change notice names the activities that changed, not their content: subscribers read the database, which is the source
of truth. A channel layer may therefore drop, repeat or reorder notices, and no text of a run passes through it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from ..parsing import MAX_INT64

MESSAGE_TYPE = "agentexec.hint"  # on the channel layer; other releases read it during a deploy
_FEED = "agentexec.feed."
# Every channel layer accepts these names for a group, less the prefix.
_LAYER_NAME = re.compile(r"[A-Za-z0-9_.-]{1,80}")


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
