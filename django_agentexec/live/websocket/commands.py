"""Commands of websocket clients: their parser and their rate limit."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.utils.translation import gettext as _

from ...parsing import MAX_INT64, parse_digits, parse_id
from ..messages import Scalar

MAX_BYTES = 32_768  # of one message; 100 ids with their positions need a third of it
MAX_IDS = 100
MAX_REQUEST = 200  # characters of a `request` that is text
COMMANDS = ("subscribe", "unsubscribe", "cancel", "retry")
MAX_BURST = 60  # messages that a client may send at once
MAX_PER_SECOND = 10.0  # messages that a client may send in the long run

_INFINITE = (float("inf"), -float("inf"))  # the value of 1e999; an answer with it would not be JSON


class Unreadable(Exception):
    """A message that violates the protocol; the socket is closed."""


class Invalid(Exception):
    """A message with an impossible value; the answer is an error. Carries the message's `request`."""

    def __init__(self, message: str, request: Scalar) -> None:
        super().__init__(message)
        self.request = request


@dataclass(frozen=True, slots=True)
class Command:
    """A command for some activities."""

    name: str
    agent_ids: list[UUID]
    after: dict[UUID, int] = field(default_factory=dict)
    """For `subscribe`: the last log line of each activity that the client has."""
    request: Scalar = None


class RateLimit:
    """A token bucket for one socket: `MAX_BURST` messages at once, `MAX_PER_SECOND` in the long run."""

    def __init__(self) -> None:
        self._tokens = float(MAX_BURST)
        self._updated_at = time.monotonic()

    def take(self) -> bool:
        """Return whether another message is allowed now."""
        now = time.monotonic()
        self._tokens = min(MAX_BURST, self._tokens + (now - self._updated_at) * MAX_PER_SECOND)
        self._updated_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def parse(text: str | None) -> Command | None:
    """Return the command, or None for a `pong`. Raises `Unreadable` and `Invalid`."""
    if text is None:
        raise Unreadable(_("Send text, not bytes."))
    if len(text) > MAX_BYTES or len(text.encode()) > MAX_BYTES:
        raise Unreadable(_("A message may have at most %(bytes)d bytes.") % {"bytes": MAX_BYTES})
    try:
        message = json.loads(text, parse_constant=_reject)
    except (ValueError, RecursionError):
        raise Unreadable(_("The message is not JSON.")) from None
    if not isinstance(message, dict):
        raise Unreadable(_("The message is not a JSON object."))
    if message.get("type") == "pong":
        return None
    return _command(message, _request(message))


def _reject(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON.")


def _request(message: dict[str, Any]) -> Scalar:
    request = message.get("request")
    if not isinstance(request, Scalar) or len(str(request)) > MAX_REQUEST or request in _INFINITE:
        text = _("`request` must be a scalar of at most %(characters)d characters.")
        raise Invalid(text % {"characters": MAX_REQUEST}, None)
    return request


def _command(message: dict[str, Any], request: Scalar) -> Command:
    names = [name for name in COMMANDS if name in message]
    unknown = message.keys() - {*COMMANDS, "after", "request", "type"}
    if len(names) != 1 or unknown:
        text = _("A message must have exactly one of %(commands)s, and no unknown fields; received: %(fields)s.")
        raise Invalid(text % {"commands": ", ".join(COMMANDS), "fields": sorted(message)[:10]}, request)
    (name,) = names
    value = message[name]
    if name.endswith("subscribe"):
        if not isinstance(value, list) or not 1 <= len(value) <= MAX_IDS:
            text = _("`%(command)s` must be a list of 1 to %(maximum)d ids.")
            raise Invalid(text % {"command": name, "maximum": MAX_IDS}, request)
        ids = list(dict.fromkeys(_agent_id(each, request) for each in value))
    else:
        ids = [_agent_id(value, request)]
    return Command(name, ids, _after(message.get("after"), request), request)


def _agent_id(value: object, request: Scalar) -> UUID:
    try:
        return parse_id(value if isinstance(value, str) else "")
    except ValueError:
        text = _("%(value)r is not the id of an activity.") % {"value": str(value)[:50]}
        raise Invalid(text, request) from None


def _after(value: object, request: Scalar) -> dict[UUID, int]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Invalid(_("`after` must be an object of log ids by activity."), request)
    return {_agent_id(agent_id, request): log_id(number, request) for agent_id, number in value.items()}


def log_id(value: object, request: Scalar = None) -> int:
    """Return the id of a log line, also from its text. Raises `Invalid`."""
    number = parse_digits(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= MAX_INT64:
        raise Invalid(_("%(value)r is not the id of a log line.") % {"value": str(value)[:50]}, request)
    return number
