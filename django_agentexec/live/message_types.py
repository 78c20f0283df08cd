"""Types of the wire messages of live updates; docs/live.md describes them."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict, final, get_args

Json = dict[str, Any]
Scalar = str | int | float | bool | None


@final
class FeedSnapshot(TypedDict):
    """The first message on a feed. A long snapshot is split into parts."""

    type: Literal["snapshot"]
    activities: list[Json]
    part: NotRequired[int]
    has_more: NotRequired[bool]


@final
class ActivitySnapshot(TypedDict):
    """The first message on an activity: its detail, with the log lines after the client's position."""

    type: Literal["snapshot"]
    activity: Json
    last_log_id: int
    has_more: NotRequired[bool]


@final
class ActivityChange(TypedDict):
    """A change of an activity: its list item and the new log lines."""

    type: Literal["activity"]
    activity: Json
    logs: list[Json]
    last_log_id: int
    has_more: NotRequired[bool]


@final
class ApprovalChange(TypedDict):
    """An approval that is requested or decided, with the shape of the REST API."""

    type: Literal["approval"]
    agent_id: str
    approval: Json


@final
class Delta(TypedDict):
    """A piece of streamed text, to append to the text before it."""

    type: Literal["delta"]
    agent_id: str
    stream_id: NotRequired[str]
    text: str
    attempt: int
    fence: int
    label: NotRequired[str]


@final
class Gap(TypedDict):
    """A notice that streamed text is missing at this point."""

    type: Literal["gap"]
    agent_id: str
    attempt: int
    fence: int
    missing: int | None


@final
class StoredText(TypedDict):
    """A part of the stored text, which replaces the text from `offset` on."""

    type: Literal["text"]
    agent_id: str
    attempt: int
    fence: int
    text: str
    offset: int
    total: int


@final
class Retraction(TypedDict):
    """A request to remove the text shown so far."""

    type: Literal["retract"]
    agent_id: str
    attempt: int
    fence: int
    stream_id: str


@final
class Rewind(TypedDict):
    """A request to remove the text (with this label) after its first `position` characters: it is written again.

    With position 0 and without a `stream_id`, a new claim (`fence`) writes the text from its beginning.
    """

    type: Literal["rewind"]
    agent_id: str
    attempt: int
    fence: int
    stream_id: NotRequired[str]
    position: int
    label: NotRequired[str]


@final
class CallStarted(TypedDict):
    """The start of a run of an agent, or of a call of a model or tool, without its content."""

    type: Literal["call_started"]
    agent_id: str
    call: Json


@final
class CallFinished(TypedDict):
    """The end of a run or call, with its tokens and cost, without its content."""

    type: Literal["call_finished"]
    agent_id: str
    call: Json


@final
class Ping(TypedDict):
    """A sign of life, sent when there is nothing else to send."""

    type: Literal["ping"]


@final
class Done(TypedDict):
    """The answer to a successful command."""

    type: Literal["done"]
    request: Scalar


@final
class Failure(TypedDict):
    """The answer to a failed command (with `request`), or the end of a subscription (with `agent_id`)."""

    type: Literal["error"]
    code: str
    message: str
    request: NotRequired[Scalar]
    agent_id: NotRequired[str]


Message = (
    FeedSnapshot
    | ActivitySnapshot
    | ActivityChange
    | ApprovalChange
    | Delta
    | Gap
    | StoredText
    | Retraction
    | Rewind
    | CallStarted
    | CallFinished
    | Ping
    | Done
    | Failure
)
TYPES: tuple[type, ...] = get_args(Message)
EVENT_TYPES = (
    *("snapshot", "activity", "approval", "delta", "gap", "text", "retract", "rewind"),
    *("call_started", "call_finished", "error"),
)
"""Types of server-sent events. A ping is a comment there, and commands exist on websockets only."""
