"""A client of streamed text, as docs/live.md describes it."""

from __future__ import annotations

from uuid import UUID

from django_agentexec.live.messages import Message
from django_agentexec.live.text_feed import TextFeed
from django_agentexec.queues import get_queue


class TextClient:
    """The text that a client shows, from the messages about one activity. For streams with one label."""

    def __init__(self, agent_id: UUID) -> None:
        self.text = ""
        self.rewinds: list[int] = []
        self._agent_id = agent_id
        self._feed = TextFeed(agent_id, None)
        self._fence: int | None = None

    def read(self) -> str:
        """Read what is new, and return the whole text."""
        self._feed.accept(get_queue().live.read({self._agent_id: self._feed.position}, 10_000))
        while self._feed.is_waiting:
            for message in self._feed.take():
                self._show(message)
        return self.text

    def _show(self, message: Message) -> None:
        if message["type"] == "retract":
            self.text = ""
        elif message["type"] == "gap":
            self.text += " [...] "
        elif message["type"] == "text":
            self.text = (self.text if message["offset"] else "") + message["text"]
        elif message["type"] == "rewind":
            self.rewinds.append(message["position"])
            self.text = self.text[: message["position"]] if message["fence"] == self._fence else ""
            self._fence = message["fence"]
        elif message["type"] == "delta":
            self.text = (self.text if message["fence"] == self._fence else "") + message["text"]
            self._fence = message["fence"]
