"""What a client may say: text read into commands, and whatever is none refused. Called by the consumers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from ...parsing import MAX_INT64, parse_digits, parse_id

MAX_BYTES = 32_768  # of one message; 100 ids with their positions need a third of it
MAX_IDS = 100
MAX_REQUEST = 200  # characters of a `request` that is text
VERBS = ("subscribe", "unsubscribe", "cancel", "retry")

Scalar = str | int | float | bool | None
_INFINITE = (float("inf"), -float("inf"))  # as 1e999 is read; an answer with it would not be JSON


class Unreadable(Exception):
    """Not a message of the protocol at all; the socket is closed."""


class Invalid(Exception):
    """A message with an impossible value; it is answered with an error. Carries the message's `request`."""

    def __init__(self, message: str, request: Scalar) -> None:
        super().__init__(message)
        self.request = request


@dataclass(frozen=True, slots=True)
class Command:
    """One thing that the client wants, for some activities."""

    verb: str
    agent_ids: list[UUID]
    after: dict[UUID, int] = field(default_factory=dict)
    """For `subscribe`: the last log line that the client has of each."""
    request: Scalar = None
    has_request: bool = False


def parse(text: str | None) -> Command | None:
    """Return the command, or None for a `pong`. Raises `Unreadable` and `Invalid`."""
    if text is None:
        raise Unreadable("Send text, not bytes.")
    if len(text) > MAX_BYTES or len(text.encode()) > MAX_BYTES:
        raise Unreadable(f"A message may have {MAX_BYTES} bytes.")
    try:
        message = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise Unreadable("A message is JSON.") from None
    if not isinstance(message, dict):
        raise Unreadable("A message is a JSON object.")
    if message.get("type") == "pong":
        return None
    return _command(message, _request(message))


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON.")


def _request(message: dict[str, Any]) -> Scalar:
    request = message.get("request")
    if not isinstance(request, Scalar) or len(str(request)) > MAX_REQUEST or request in _INFINITE:
        raise Invalid(f"`request` is a scalar, of {MAX_REQUEST} characters at most.", None)
    return request


def _command(message: dict[str, Any], request: Scalar) -> Command:
    verbs = [verb for verb in VERBS if verb in message]
    unknown = message.keys() - {*VERBS, "after", "request", "type"}
    if len(verbs) != 1 or unknown:
        raise Invalid(f"A message has one of {', '.join(VERBS)}; this one has {sorted(message)[:10]}.", request)
    (verb,) = verbs
    value = message[verb]
    if verb.endswith("subscribe"):
        if not isinstance(value, list) or not 1 <= len(value) <= MAX_IDS:
            raise Invalid(f"`{verb}` is a list of 1 to {MAX_IDS} ids.", request)
        ids = list(dict.fromkeys(_agent_id(each, request) for each in value))
    else:
        ids = [_agent_id(value, request)]
    return Command(verb, ids, _after(message.get("after"), request), request, "request" in message)


def _agent_id(value: object, request: Scalar) -> UUID:
    try:
        return parse_id(value if isinstance(value, str) else "")
    except ValueError:
        raise Invalid(f"{str(value)[:50]!r} is no id of an activity.", request) from None


def _after(value: object, request: Scalar) -> dict[UUID, int]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Invalid("`after` is an object of log ids by activity.", request)
    return {_agent_id(agent_id, request): log_id(number, request) for agent_id, number in value.items()}


def log_id(value: object, request: Scalar = None) -> int:
    """Return the id of a log line, also from its text. Raises `Invalid`."""
    number = parse_digits(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= MAX_INT64:
        raise Invalid(f"{str(value)[:50]!r} is not the id of a log line.", request)
    return number
