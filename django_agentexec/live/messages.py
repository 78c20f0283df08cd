"""Wire messages of the live updates: their types, their construction and their limits.

Websockets, server-sent events and `follow_activity` send these messages; docs/live.md describes them. Servers drop
websocket messages above their limit, which is 1 MiB for Daphne. Every message stays far below: long texts are cut,
large values are left out, and long messages are split. REST returns the full values.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast
from uuid import UUID

from django.utils.translation import gettext as _

from ..calls.queries import CallSummarySchema
from ..models import FINISHED, Activity, Approval
from ..queues import Chunk
from ..redaction import redact_internals
from ..schemas import ActivityDetailSchema, ActivityListItemSchema, ApprovalSchema
from ..tasks import Run
from .message_types import (
    EVENT_TYPES,
    TYPES,
    ActivityChange,
    ActivitySnapshot,
    ApprovalChange,
    CallFinished,
    CallStarted,
    Delta,
    Done,
    Failure,
    FeedSnapshot,
    Gap,
    Json,
    Message,
    Ping,
    Retraction,
    Rewind,
    Scalar,
    StoredText,
)

__all__ = [
    "EVENT_TYPES",
    "TYPES",
    "ActivityChange",
    "ActivitySnapshot",
    "ApprovalChange",
    "CallFinished",
    "CallStarted",
    "Delta",
    "Done",
    "Failure",
    "FeedSnapshot",
    "Gap",
    "Json",
    "Message",
    "Ping",
    "Retraction",
    "Rewind",
    "Scalar",
    "StoredText",
]

MAX_TEXT = 2_000  # characters of a log line's message, and of an activity's error and latest message
MAX_TRACEBACK = 10_000  # characters, counted from the end, which is the most informative part
MAX_VALUE = 50_000  # bytes of a context, of a result and of metadata, as JSON
MAX_LINES_SIZE = 250_000  # bytes of the log lines of one message
MAX_MESSAGE = 500_000  # bytes of a whole message
MAX_DELTA = 50_000  # characters of one message with streamed text
_ESCAPED = 6  # maximum number of bytes of a character, as JSON escapes it
_LINE_OVERHEAD = 300  # bytes of a line's other fields
_TEXTS = ("latest_log_message", "error", "public_error")
_VALUES: dict[str, Any] = {"metadata": {}, "context": {}, "result": None}
_DETAIL_COLUMNS = ActivityDetailSchema.model_fields.keys() - {"logs", "has_more_logs", "has_earlier_logs"}


# Construction


def feed_snapshot(items: Sequence[Json]) -> FeedSnapshot:
    """Return the snapshot of a feed."""
    return {"type": "snapshot", "activities": list(items)}


def activity_snapshot(detail: Json, last_log_id: int, *, has_more: bool) -> ActivitySnapshot:
    """Return the snapshot of one activity; `has_more` if further lines follow immediately."""
    message: ActivitySnapshot = {"type": "snapshot", "activity": detail, "last_log_id": last_log_id}
    if has_more:
        message["has_more"] = True
    return message


def activity_change(item: Json, lines: Sequence[Line], last_log_id: int, *, has_more: bool = False) -> ActivityChange:
    """Return the message of a changed activity; `has_more` if further lines follow immediately."""
    message: ActivityChange = {
        "type": "activity",
        "activity": item,
        "logs": [line.json for line in lines],
        "last_log_id": last_log_id,
    }
    if has_more:
        message["has_more"] = True
    return message


def approval_change(approval: Approval) -> ApprovalChange:
    """Return the message of a requested or decided approval; `truncated` names the values that were left out."""
    fields = ApprovalSchema.json_of(approval)
    cut = [name for name in ("arguments", "changed_arguments", "answer") if len(json.dumps(fields[name])) > MAX_VALUE]
    fields |= dict.fromkeys(cut)
    if len(fields["title"]) > MAX_TEXT:
        fields["title"] = fields["title"][:MAX_TEXT]
        cut.append("title")
    return {
        "type": "approval",
        "agent_id": str(approval.activity_id),
        "approval": {**fields, "truncated": cut} if cut else fields,
    }


def delta(chunk: Chunk) -> Delta:
    """Return the message of a piece of streamed text."""
    message: Delta = {
        "type": "delta",
        "agent_id": str(chunk.agent_id),
        "stream_id": chunk.stream_id,
        "text": chunk.text,
        "attempt": chunk.attempt,
        "fence": chunk.fence,
    }
    if chunk.label:
        message["label"] = chunk.label
    return message


def gap(agent_id: UUID, attempt: int, fence: int, missing: int | None) -> Gap:
    """Return the notice that `missing` characters (None: an unknown number) of streamed text are missing here."""
    return {"type": "gap", "agent_id": str(agent_id), "attempt": attempt, "fence": fence, "missing": missing}


def stored_text(agent_id: UUID, attempt: int, fence: int, whole: str, offset: int) -> StoredText:
    """Return the part of the stored text that begins at `offset`."""
    return {
        "type": "text",
        "agent_id": str(agent_id),
        "attempt": attempt,
        "fence": fence,
        "text": whole[offset : offset + MAX_DELTA],
        "offset": offset,
        "total": len(whole),
    }


def retraction(chunk: Chunk, fence: int) -> Retraction:
    """Return the request to remove the text shown so far."""
    return {
        "type": "retract",
        "agent_id": str(chunk.agent_id),
        "attempt": chunk.attempt,
        "fence": fence,
        "stream_id": chunk.stream_id,
    }


def rewind(chunk: Chunk, fence: int) -> Rewind:
    """Return the request to remove the text after a position."""
    message: Rewind = {
        "type": "rewind",
        "agent_id": str(chunk.agent_id),
        "attempt": chunk.attempt,
        "fence": fence,
        "stream_id": chunk.stream_id,
        "position": chunk.rewinds_to,
    }
    if chunk.label:
        message["label"] = chunk.label
    return message


def restart(chunk: Chunk) -> Rewind:
    """Return the notice that a new claim writes the text from its beginning again."""
    return {
        "type": "rewind",
        "agent_id": str(chunk.agent_id),
        "attempt": chunk.attempt,
        "fence": chunk.fence,
        "position": 0,
    }


def call_event(agent_id: UUID, call: CallSummarySchema) -> CallStarted | CallFinished:
    """Return the event of a call: its start, or its end once it has ended."""
    fields = call.model_dump(mode="json")
    fields["error"], fields["public_error"] = fields["error"][:MAX_TEXT], fields["public_error"][:MAX_TEXT]
    if call.finished_at is None:
        return {"type": "call_started", "agent_id": str(agent_id), "call": fields}
    return {"type": "call_finished", "agent_id": str(agent_id), "call": fields}


def ping() -> Ping:
    """Return a sign of life."""
    return {"type": "ping"}


def done(request: Scalar) -> Done:
    """Return the answer to a successful command."""
    return {"type": "done", "request": request}


def failure(code: str, message: str, request: Scalar = None) -> Failure:
    """Return the answer to a failed command."""
    return {"type": "error", "code": code, "message": message, "request": request}


def activity_deleted(agent_id: UUID) -> Failure:
    """Return the message that a followed activity does not exist any more."""
    text = not_found_text(agent_id)
    return {"type": "error", "code": "not_found", "message": text, "agent_id": str(agent_id)}


def not_found_text(agent_id: UUID) -> str:
    """Return the text of errors about an activity that does not exist, or that the user may not see."""
    return _("There is no activity %(id)s.") % {"id": agent_id}


def is_final(message: Message) -> bool:
    """Return whether the message has a final status, after which no further lines follow."""
    if "activity" not in message:
        return False
    return message["activity"]["status"] in FINISHED and not message.get("has_more")


# Encoding


def redacted(message: Message | Json) -> Message:
    """Return a message without server internals, for users without the monitor permission."""
    return cast("Message", redact_internals(cast("Json", message)))


def to_frame(message: Message, seq: int) -> str:
    """Return the text of a websocket frame; `seq` is the number of the message on its connection."""
    return json.dumps({"type": message["type"], "seq": seq, **message}, separators=(",", ":"))


def to_event(message: Message | Json, event_id: object) -> bytes:
    """Return a server-sent event. A ping is a comment: it keeps the connection open and has no other effect."""
    if message["type"] == "ping":
        return b": ping\n\n"
    data = json.dumps(message, ensure_ascii=False)
    return f"id: {event_id}\nevent: {message['type']}\ndata: {data}\n\n".encode()


# Limits


@dataclass(frozen=True, slots=True)
class Line:
    """A log line: its id, its JSON, and an upper bound of the bytes of that JSON."""

    id: int
    json: Json
    size: int


def line(fields: Json) -> Line:
    """Return a log line within the limits; `truncated` is set if a text was cut."""
    message, public, traceback = fields["message"], fields["public_message"] or "", fields["traceback"]
    if max(len(message), len(public)) > MAX_TEXT or len(traceback) > MAX_TRACEBACK:
        message, public, traceback = message[:MAX_TEXT], public[:MAX_TEXT], traceback[-MAX_TRACEBACK:]
        cut = {"message": message, "traceback": traceback, "truncated": True}
        fields = {**fields, **cut, "public_message": None if fields["public_message"] is None else public}
    return Line(fields["id"], fields, _size(message) + _size(public) + _size(traceback) + _LINE_OVERHEAD)


def item(row: Activity) -> Json:
    """Return a list item within the limits; `truncated` names the fields that were cut or left out."""
    return _limit(ActivityListItemSchema.json_of(row))


def detail(row: Activity) -> Json:
    """Return the detail without its log, within the limits. A large result is replaced by `result_url`."""
    found = _limit(full_detail(row))
    if "result" in found.get("truncated", ()):
        found["result_url"] = f"{Run(row.agent_id, row.agent_type).status_url.rstrip('/')}/result/"
    return found


def full_detail(row: Activity) -> Json:
    """Return the detail without its log, with texts and values of any length."""
    return ActivityDetailSchema.json_of({name: getattr(row, name) for name in _DETAIL_COLUMNS})


def group_lines(lines: Sequence[Line]) -> list[Sequence[Line]]:
    """Split the lines into groups that each fit into a message; one empty group if there are no lines."""
    groups: list[list[Line]] = [[]]
    size = 0
    for each in lines:
        if groups[-1] and size + each.size > MAX_LINES_SIZE:
            groups.append([])
            size = 0
        groups[-1].append(each)
        size += each.size
    return list(groups)


def split(message: Message) -> Iterable[Message]:
    """Split a message that is too long; usually the result is the message itself."""
    if message["type"] == "delta":
        return _split_delta(message)
    if "activities" in message:
        return _split_snapshot(message)
    return [message]


def _split_delta(message: Delta) -> Iterator[Delta]:
    """Split a long text. Only the last part has the `stream_id`: a client that is cut off gets the whole text again."""
    text, most = message["text"], MAX_MESSAGE // _ESCAPED
    beginning = {name: value for name, value in message.items() if name != "stream_id"}
    while len(text) > most:
        yield cast("Delta", {**beginning, "text": text[:most]})
        text = text[most:]
    yield {**message, "text": text}


def _split_snapshot(message: FeedSnapshot) -> Iterator[FeedSnapshot]:
    """Split a feed's snapshot: all parts but the last have `has_more`, all but the first their number as `part`."""
    groups: list[list[Json]] = [[]]
    size = 0
    for each in message["activities"]:
        more = len(json.dumps(each))
        if groups[-1] and size + more > MAX_MESSAGE:
            groups.append([])
            size = 0
        groups[-1].append(each)
        size += more
    for number, group in enumerate(groups, 1):
        part: FeedSnapshot = {**message, "activities": group}
        if number > 1:
            part["part"] = number
        if number < len(groups):
            part["has_more"] = True
        yield part


def _limit(fields: Json) -> Json:
    texts = {name: fields[name] for name in _TEXTS}
    _limit_quoted_error(fields)
    for name in _TEXTS:
        fields[name] = fields[name] and fields[name][:MAX_TEXT]
    cut = [name for name in _TEXTS if fields[name] != texts[name]]
    if len(fields.get("traceback", "")) > MAX_TRACEBACK:
        fields["traceback"] = fields["traceback"][-MAX_TRACEBACK:]
        cut.append("traceback")
    for name, empty in _VALUES.items():
        if fields.get(name) and len(json.dumps(fields[name])) > MAX_VALUE:
            fields[name] = empty
            cut.append(name)
    return {**fields, "truncated": cut} if cut else fields


def _limit_quoted_error(fields: Json) -> None:
    """Shorten the error alike where it stands and where the latest message quotes it.

    The redaction replaces the whole error in the message: of an error that ends earlier there, a part would remain.
    """
    message, error = fields["latest_log_message"], fields["error"]
    quoted = message.count(error) if error else 0
    if quoted and len(message) > MAX_TEXT:
        room = MAX_TEXT - (len(message) - quoted * len(error))
        short = error[: max(room // quoted, 0)]
        fields["latest_log_message"] = message.replace(error, short)
        fields["error"] = short or error


def _size(text: str) -> int:
    """Return an upper bound of the bytes of `text` in JSON."""
    return _ESCAPED * len(text) if len(text) < MAX_TEXT // 20 else len(json.dumps(text))
