"""The text of a model, extracted from the SDK's stream events for clients that follow the activity."""

from __future__ import annotations

from typing import Protocol
from uuid import UUID
from weakref import WeakKeyDictionary

from agents import AgentUpdatedStreamEvent, RawResponsesStreamEvent, StreamEvent
from openai.types.responses import (
    ResponseCompletedEvent,
    ResponseCreatedEvent,
    ResponseOutputItemAddedEvent,
    ResponseTextDeltaEvent,
)

from django_agentexec.current import OwningAttempt, current_attempt

BETWEEN_MESSAGES = "\n\n"

_writers: WeakKeyDictionary[OwningAttempt, dict[str, list[TextStream]]] = WeakKeyDictionary()


class TextChannel(Protocol):
    """The stream of an activity, as a runner offers it."""

    def stream(self, text: str, label: str = "") -> None:
        """Publish text."""

    def stream_position(self, label: str = "") -> int:
        """Return how many characters were published with a label."""

    def rewind_stream(self, position: int, label: str = "") -> None:
        """Withdraw the text with a label after so many characters."""


class TextStream:
    """Publishes text on a channel with a label, and separates messages of the model by an empty line.

    The text of a model call that fails is withdrawn: another call will follow, or the run fails.

    The label is `label`, or within an attempt the name of the writing agent. A number is appended for a second runner
    with an agent of the same name.
    """

    def __init__(self, agent_id: UUID, channel: TextChannel, label: str | None = None) -> None:
        self.has_published = False
        """Whether text was published that can be retracted."""
        self._agent_id = agent_id
        self._channel = channel
        self._fixed_label = label
        self._label = label or ""
        self._is_new_message = False
        self._before_call: tuple[int, str, bool] | None = None
        """While a model call writes: the position before it, its label, and whether text was published before."""

    def handle(self, event: StreamEvent) -> None:
        """Publish the text of an event. Reasoning and tool calls have no text."""
        if isinstance(event, AgentUpdatedStreamEvent) and self._fixed_label is None:
            self._label = self._label_of(event.new_agent.name)
        if not isinstance(event, RawResponsesStreamEvent):
            return
        if isinstance(event.data, ResponseCreatedEvent):
            self.withdraw_call()  # of a try that has failed
        elif isinstance(event.data, ResponseCompletedEvent):
            self._before_call = None
        elif isinstance(event.data, ResponseOutputItemAddedEvent):
            self._is_new_message = self.has_published
        elif isinstance(event.data, ResponseTextDeltaEvent) and event.data.delta:
            if self._before_call is None:
                self._before_call = self._channel.stream_position(self._label), self._label, self.has_published
            self._channel.stream((BETWEEN_MESSAGES if self._is_new_message else "") + event.data.delta, self._label)
            self.has_published, self._is_new_message = True, False

    def withdraw_call(self) -> None:
        """Withdraw the text of a model call that has not ended."""
        if self._before_call is not None:
            position, label, self.has_published = self._before_call
            self._before_call = None
            self._channel.rewind_stream(position, label)

    def restart(self, agent: str) -> None:
        """Withdraw what an earlier attempt has published."""
        label = self._fixed_or(agent)
        if self._channel.stream_position(label) == 0:  # otherwise another run of this attempt has published
            self._channel.rewind_stream(0, label)

    def replay(self, text: str, agent: str) -> None:
        """Publish the text of a recorded message of an agent."""
        self._channel.stream((BETWEEN_MESSAGES if self.has_published else "") + text, self._fixed_or(agent))
        self.has_published = True

    def forget(self) -> None:
        """Note that all text was retracted."""
        self.has_published, self._before_call = False, None

    def _fixed_or(self, agent: str) -> str:
        return (self._fixed_label if self._fixed_label is not None else self._label_of(agent)) or ""

    def _label_of(self, name: str) -> str:
        attempt = current_attempt(self._agent_id)
        if attempt is None:
            return ""
        writers = _writers.setdefault(attempt, {}).setdefault(name, [])
        if self not in writers:
            writers.append(self)
        number = writers.index(self) + 1
        return name if number == 1 else f"{name} ({number})"
