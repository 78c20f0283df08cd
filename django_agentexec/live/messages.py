"""Live messages within bounds: long texts are cut, large values are left out, and long messages are split.

Servers drop websocket messages above their limit, which is 1 MiB for Daphne. Every message that is made here stays far
below, whatever a row contains. REST returns the full values.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..models import ACTIVE, Activity, Status
from ..schemas import ActivityDetailSchema, ActivityListItemSchema
from ..tasks import ActivityHandle

Json = dict[str, Any]

MAX_TEXT = 2_000  # characters of a log line's message, and of an activity's error and latest message
MAX_TRACEBACK = 10_000  # characters; the end of a traceback says most
MAX_VALUE = 50_000  # bytes of a context, of a result and of metadata, as JSON
MAX_LINES_SIZE = 250_000  # bytes of the log lines of one message
MAX_MESSAGE = 500_000  # bytes of a whole message
_ESCAPED = 6  # bytes of a character at most, as JSON escapes it
_LINE_OVERHEAD = 300  # bytes of a line's other fields
_TEXTS = ("latest_log_message", "error", "public_error")
_VALUES: dict[str, Any] = {"metadata": {}, "context": {}, "result": None}


@dataclass(frozen=True, slots=True)
class Line:
    """A log line: its id, the line as JSON, and how many bytes that has at most."""

    id: int
    json: Json
    size: int


def line(fields: Json) -> Line:
    """Return a log line of the wire within bounds; `truncated` is set where something was cut."""
    message, public, traceback = fields["message"], fields["public_message"] or "", fields["traceback"]
    if max(len(message), len(public)) > MAX_TEXT or len(traceback) > MAX_TRACEBACK:
        message, public, traceback = message[:MAX_TEXT], public[:MAX_TEXT], traceback[-MAX_TRACEBACK:]
        cut = {"message": message, "public_message": public or None, "traceback": traceback, "truncated": True}
        fields = {**fields, **cut}
    return Line(fields["id"], fields, _size(message) + _size(public) + _size(traceback) + _LINE_OVERHEAD)


def item(row: Activity) -> Json:
    """Return a list item within bounds; `truncated` names the fields that were cut or left out."""
    return _within_bounds(ActivityListItemSchema.model_validate(row).model_dump(mode="json"))


def detail(row: Activity) -> Json:
    """Return the detail without its log, within bounds. A large result is replaced by `result_url`."""
    columns = ActivityDetailSchema.model_fields.keys() - {"logs", "has_more_logs", "has_earlier_logs"}
    values = {name: getattr(row, name) for name in columns}
    found = _within_bounds(ActivityDetailSchema.model_validate(values).model_dump(mode="json"))
    if "result" in found.get("truncated", ()):
        found["result_url"] = f"{ActivityHandle(row.agent_id, row.agent_type).status_url.rstrip('/')}/result/"
    return found


def as_of(activity: Json, last: Line) -> Json:
    """Return an ended activity (item or detail) as it was at this line, after which further lines follow.

    A client that stops at a final status has all lines: the status comes with the last of them.
    """
    if activity["status"] in ACTIVE:
        return activity
    status = last.json["status"]
    return {
        **{name: value for name, value in activity.items() if name != "result_url"},
        **{name: value for name, value in (("result", None), ("traceback", "")) if name in activity},
        "status": status if status in ACTIVE else Status.QUEUED.value,  # only a retry follows an end
        "percentage": last.json["percentage"],
        "latest_log_message": last.json["message"],
        "latest_log_timestamp": last.json["created_at"],
        "finished_at": None,
        "error": "",
    }


def parts(lines: Sequence[Line]) -> list[Sequence[Line]]:
    """Return the lines in groups of which each fits into a message; one empty group if there are none."""
    groups: list[list[Line]] = [[]]
    size = 0
    for each in lines:
        if groups[-1] and size + each.size > MAX_LINES_SIZE:
            groups.append([])
            size = 0
        groups[-1].append(each)
        size += each.size
    return list(groups)


def split(message: Json) -> Iterable[Json]:
    """Return the messages, one as a rule, as which this one is sent."""
    if message["type"] == "delta":
        return _split_text(message)
    if "activities" in message:
        return _split_snapshot(message)
    return [message]


def _split_text(message: Json) -> Iterator[Json]:
    """Split a long text. Only its last part has the `stream_id`, so a client that is cut off gets all of it again."""
    text, most = message["text"], MAX_MESSAGE // _ESCAPED
    beginning = {name: value for name, value in message.items() if name != "stream_id"}
    while len(text) > most:
        yield {**beginning, "text": text[:most]}
        text = text[most:]
    yield {**message, "text": text}


def _split_snapshot(message: Json) -> Iterator[Json]:
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
        part = {**message, "activities": group}
        part |= {"part": number} if number > 1 else {}
        part |= {"has_more": True} if number < len(groups) else {}
        yield part


def _within_bounds(fields: Json) -> Json:
    cut: list[str] = []
    for name in _TEXTS:
        if len(fields[name] or "") > MAX_TEXT:
            fields[name] = fields[name][:MAX_TEXT]
            cut.append(name)
    if len(fields.get("traceback", "")) > MAX_TRACEBACK:
        fields["traceback"] = fields["traceback"][-MAX_TRACEBACK:]
        cut.append("traceback")
    for name, empty in _VALUES.items():
        if fields.get(name) and len(json.dumps(fields[name])) > MAX_VALUE:
            fields[name] = empty
            cut.append(name)
    return {**fields, "truncated": cut} if cut else fields


def _size(text: str) -> int:
    """Return the bytes of `text` in JSON, at most."""
    return _ESCAPED * len(text) if len(text) < MAX_TEXT // 20 else len(json.dumps(text))
