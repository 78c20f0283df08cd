"""The content of calls that users may read: the settings `TRACE_CONTENT` and `TRACE_REDACT`, and public errors."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.utils.module_loading import import_string

from ..conf import conf
from ..logs import ThrottledLogger
from ..models import AgentCall, CallKind
from ..public_errors import neutral_error
from ..validation import json_result

logger = logging.getLogger(__name__)
throttled = ThrottledLogger(logger)

Redact = Callable[[Any, str, AgentCall], Any]
"""`TRACE_REDACT`: receives a value, its field (`request`, `arguments`, `output`, `error`) and the call."""

FIELDS = ("request", "arguments", "output")
_HIDDEN_BY_SETTING = {"full": (), "outputs": ("request", "arguments"), "none": FIELDS}
# The arguments of calls of tools in the answer of a model, also of tools that the provider runs.
_CHOSEN_BY_MODEL = frozenset(
    {"arguments", "input", "action", "actions", "operation", "code", "queries", "revised_prompt"}
)
# The agents SDK turns an exception of a tool into this output, with the text of the exception.
_FAILED_TOOL = "An error occurred while running the tool"


@dataclass(frozen=True)
class Content:
    """The content of a call as a user may read it."""

    request: Any = None
    arguments: Any = None
    output: Any = None
    error: str = ""
    public_error: str = ""
    hidden: tuple[str, ...] = ()
    """The fields whose stored value is not shown."""


def content_of(call: AgentCall, *, monitors: bool, fields: tuple[str, ...] = ("arguments", "output")) -> Content:
    """Return the content of a call for a user with or without the monitor permission.

    Raw requests contain the instructions of agents, so they require the monitor permission. `fields` are the fields to
    read; others are not loaded.
    """
    shown: dict[str, Any] = {}
    hidden: list[str] = []
    for name in fields:
        value = getattr(call, name)
        if value is None:
            continue
        if name in _HIDDEN_BY_SETTING[conf.TRACE_CONTENT] or (name == "request" and not monitors):
            hidden.append(name)
            continue
        if name == "output":
            value = _readable_output(call, value, monitors=monitors)
        elif isinstance(value, list) and not monitors:  # the history that a run received
            value = [public_item(item) for item in value]
        shown[name], is_hidden = redacted(value, name, call)
        if is_hidden:
            hidden.append(name)
    error = error_of(call)
    return Content(**shown, error=error, public_error=neutral_error(error) if error else "", hidden=tuple(hidden))


def error_of(call: AgentCall) -> str:
    """Return the error of a call for users with the monitor permission; others read `neutral_error` of it."""
    if not call.error:
        return ""
    if conf.TRACE_CONTENT == "none":
        return neutral_error(call.error)
    value, is_hidden = redacted(call.error, "error", call)
    return neutral_error(call.error) if is_hidden or not isinstance(value, str) else value


def failed_in_tool(call: AgentCall, output: Any) -> bool:
    """Return whether the output of a tool is the text of its exception, which the model received."""
    return call.kind == CallKind.TOOL and _is_failure(output)


def public_item(item: Any) -> Any:
    """Return an item of a history for users without the monitor permission: without the text of a tool's exception."""
    is_output = isinstance(item, dict) and str(item.get("type")).endswith("_output")
    return {**item, "output": neutral_error("")} if is_output and _is_failure(item.get("output")) else item


def trace_redactor() -> Redact | None:
    """Return the function of `TRACE_REDACT`, or None. Raises `ImportError` or `TypeError` if it cannot be used."""
    if not conf.TRACE_REDACT:
        return None
    function = import_string(conf.TRACE_REDACT) if isinstance(conf.TRACE_REDACT, str) else conf.TRACE_REDACT
    if not callable(function):
        raise TypeError(f"{conf.TRACE_REDACT} is not callable.")
    return function


def _is_failure(output: Any) -> bool:
    return isinstance(output, str) and output.startswith(_FAILED_TOOL)


def _readable_output(call: AgentCall, value: Any, *, monitors: bool) -> Any:
    if not monitors and failed_in_tool(call, value):
        return neutral_error("")
    if call.kind == CallKind.MODEL and conf.TRACE_CONTENT == "outputs" and isinstance(value, dict):
        items = [
            {name: part for name, part in item.items() if name not in _CHOSEN_BY_MODEL}
            if isinstance(item, dict)
            else item
            for item in value.get("output") or ()
        ]
        return {**value, "output": items}
    return value


def redacted(value: Any, name: str, call: AgentCall) -> tuple[Any, bool]:
    """Return what `TRACE_REDACT` makes of a value, and whether the value is hidden because the function failed."""
    try:
        redact = trace_redactor()
        return (value if redact is None else json_result(redact(value, name, call))), False
    except Exception as error:  # noqa: BLE001  # any error of a project's function; nothing is shown then
        throttled.warn("AGENTEXEC['TRACE_REDACT'] failed; the values of the trace are hidden.", error)
        return None, True
