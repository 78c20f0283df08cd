"""The text of a model, extracted from the SDK's stream events for clients that follow the activity."""

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
    """Publishes text by `publish` with a label, and separates messages of the model by an empty line.

    The label is `label`, or within an attempt the name of the writing agent. A number is appended for a second runner
    with an agent of the same name.
    """

    def __init__(self, agent_id: UUID, publish: Callable[[str, str], None], label: str | None = None) -> None:
        self.has_published = False
        """Whether text was published that can be retracted."""
        self._agent_id = agent_id
        self._publish = publish
        self._fixed_label = label
        self._label = label or ""
        self._is_new_message = False

    def handle(self, event: StreamEvent) -> None:
        """Publish the text of an event. Reasoning and tool calls have no text."""
        if isinstance(event, AgentUpdatedStreamEvent) and self._fixed_label is None:
            self._label = self._label_of(event.new_agent.name)
        if not isinstance(event, RawResponsesStreamEvent):
            return
        if isinstance(event.data, ResponseOutputItemAddedEvent):
            self._is_new_message = self.has_published
        elif isinstance(event.data, ResponseTextDeltaEvent) and event.data.delta:
            self._publish((BETWEEN_MESSAGES if self._is_new_message else "") + event.data.delta, self._label)
            self.has_published, self._is_new_message = True, False

    def replay(self, text: str, agent: str) -> None:
        """Publish the text of a recorded message of an agent."""
        label = self._fixed_label if self._fixed_label is not None else self._label_of(agent)
        self._publish((BETWEEN_MESSAGES if self.has_published else "") + text, label or "")
        self.has_published = True

    def _label_of(self, name: str) -> str:
        attempt = current_attempt(self._agent_id)
        if attempt is None:
            return ""
        writers = _writers.setdefault(attempt, {}).setdefault(name, [])
        if self not in writers:
            writers.append(self)
        number = writers.index(self) + 1
        return name if number == 1 else f"{name} ({number})"
