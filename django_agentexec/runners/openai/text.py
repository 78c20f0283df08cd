"""The text that a model writes, taken out of the SDK's stream events for those who follow the activity live."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID
from weakref import WeakKeyDictionary

from agents import AgentUpdatedStreamEvent, RawResponsesStreamEvent, StreamEvent
from openai.types.responses import ResponseOutputItemAddedEvent, ResponseTextDeltaEvent

from django_agentexec.activity.current import OwningAttempt, current_attempt

BETWEEN_MESSAGES = "\n\n"

_writers: WeakKeyDictionary[OwningAttempt, dict[str, list[TextStream]]] = WeakKeyDictionary()


class TextStream:
    """Hands each piece of text to `show` with a label, and an empty line between the model's messages.

    The label is `label`, or inside of an attempt the name of the agent that writes; a second runner whose agent has the
    same name gets a number.
    """

    def __init__(self, agent_id: UUID, show: Callable[[str, str], None], label: str | None = None) -> None:
        self.has_shown = False
        """Whether there is text to be taken back."""
        self._agent_id = agent_id
        self._show = show
        self._given = label
        self._label = label or ""
        self._is_new_message = False

    def hear(self, event: StreamEvent) -> None:
        """Show the text of this event, if it has any; reasoning and calls of tools have none."""
        if isinstance(event, AgentUpdatedStreamEvent) and self._given is None:
            self._label = self._label_of(event.new_agent.name)
        if not isinstance(event, RawResponsesStreamEvent):
            return
        if isinstance(event.data, ResponseOutputItemAddedEvent):
            self._is_new_message = self.has_shown
        elif isinstance(event.data, ResponseTextDeltaEvent) and event.data.delta:
            self._show((BETWEEN_MESSAGES if self._is_new_message else "") + event.data.delta, self._label)
            self.has_shown, self._is_new_message = True, False

    def _label_of(self, name: str) -> str:
        attempt = current_attempt(self._agent_id)
        if attempt is None:
            return ""
        writers = _writers.setdefault(attempt, {}).setdefault(name, [])
        if self not in writers:
            writers.append(self)
        number = writers.index(self) + 1
        return name if number == 1 else f"{name} ({number})"
