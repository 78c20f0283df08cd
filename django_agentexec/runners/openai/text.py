"""The text that a model writes, taken out of the SDK's stream events for those who follow the activity live."""

from __future__ import annotations

from collections.abc import Callable

from agents import RawResponsesStreamEvent, StreamEvent
from openai.types.responses import ResponseOutputItemAddedEvent, ResponseTextDeltaEvent

BETWEEN_MESSAGES = "\n\n"


class TextStream:
    """Hands each piece of text to `show`, with an empty line between the model's messages."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._has_shown = False
        self._is_new_message = False

    def hear(self, event: StreamEvent) -> None:
        """Show the text of this event, if it has any; reasoning and calls of tools have none."""
        if not isinstance(event, RawResponsesStreamEvent):
            return
        if isinstance(event.data, ResponseOutputItemAddedEvent):
            self._is_new_message = self._has_shown
        elif isinstance(event.data, ResponseTextDeltaEvent) and event.data.delta:
            self._show((BETWEEN_MESSAGES if self._is_new_message else "") + event.data.delta)
            self._has_shown, self._is_new_message = True, False
