"""The W3C trace context: from the code that enqueues, through the queue, to the handler and the calls of its agents.

The ids of spans are computed from the places of calls, so a call knows the id of its parent, whose span ends later and
possibly in another process. OpenTelemetry is optional: while it is not imported, nothing here costs anything.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Protocol
from uuid import UUID

from ..choices import CallKind
from ..models import AgentCall

_API = "opentelemetry.trace"
_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
# Segments of paths; see `calls.paths`.
_BESIDE = re.compile(r"(.*)[\^+][^~^+/]*")
_SIBLING = re.compile(r"~[^~^+/]+$")
_INSIDE = re.compile(r".*/[^/:]+:[^/]*")


class NumberedAttempt(Protocol):
    """The attempt of an activity."""

    @property
    def agent_id(self) -> UUID:
        """The id of the activity."""

    @property
    def number(self) -> int:
        """The number of the attempt, from 1."""


def loaded_api() -> Any:
    """Return the module `opentelemetry.trace` if this process has imported it, otherwise None."""
    return sys.modules.get(_API)


@contextmanager
def continued(traceparent: str) -> Iterator[None]:
    """Make the span that a traceparent names the active span, so that spans of the handler become its children."""
    trace = _installed_api() if traceparent else None
    span = parsed(trace, traceparent) if trace is not None else None
    if span is None:
        yield
    else:
        with _active(trace, span):
            yield


@contextmanager
def within_call(attempt: NumberedAttempt, key: str) -> Iterator[None]:
    """Make the span of a running call the active span: its own span is created when it has ended."""
    trace = loaded_api()
    if trace is None:
        yield
        return
    agent_id = attempt.agent_id
    outer = trace.get_current_span().get_span_context()
    trace_id = outer.trace_id if outer.is_valid else agent_id.int
    flags = outer.trace_flags if outer.is_valid else root_flags(trace, trace_id)
    span = trace.SpanContext(trace_id, span_id_of(agent_id, attempt.number, key), is_remote=False, trace_flags=flags)
    with _active(trace, span):
        yield


def parsed(trace: Any, traceparent: str) -> Any:
    """Return the `SpanContext` of a traceparent, or None if it is invalid."""
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None:
        return None
    trace_id, span_id, flags = (int(part, 16) for part in found.groups())
    span = trace.SpanContext(trace_id, span_id, is_remote=True, trace_flags=trace.TraceFlags(flags))
    return span if span.is_valid else None


def root_flags(trace: Any, trace_id: int) -> Any:
    """Return the flags of a trace that begins with the activity, as the sampler of the SDK decides for its root."""
    sampler = getattr(trace.get_tracer_provider(), "sampler", None)
    if sampler is None:
        return trace.TraceFlags(trace.TraceFlags.SAMPLED)
    decision = sampler.should_sample(None, trace_id, "agentexec").decision
    return trace.TraceFlags(trace.TraceFlags.SAMPLED if decision.is_sampled() else trace.TraceFlags.DEFAULT)


def span_id_of(agent_id: UUID, attempt: int, key: str) -> int:
    """Return the id of the span with this key in an attempt of an activity."""
    digest = hashlib.sha256(f"{agent_id}:{attempt}:{key}".encode()).digest()
    return int.from_bytes(digest[:8]) or 1


def key_of_run(path: str) -> str:
    """Return the key of the run of an agent."""
    return f"run:{path}"


def key_inside(path: str) -> str:
    """Return the key of the tool call, or side effect, that encloses the runs at `path`."""
    return f"call:{path}"


def parent_key(call: AgentCall) -> str | None:
    """Return the key of the enclosing run or tool call; None for what the handler itself has begun."""
    if call.kind in (CallKind.MODEL, CallKind.TOOL):
        return key_of_run(call.path)
    if call.kind == CallKind.ONCE:
        return None
    if beside := _BESIDE.fullmatch(call.path):
        return key_of_run(beside[1])
    scope = _SIBLING.sub("", call.path)
    return key_inside(scope) if _INSIDE.fullmatch(scope) else None


def _installed_api() -> Any:
    try:
        return import_module(_API)
    except ImportError:
        return None


@contextmanager
def _active(trace: Any, span: Any) -> Iterator[None]:
    context = import_module("opentelemetry.context")
    token = context.attach(trace.set_span_in_context(trace.NonRecordingSpan(span)))
    try:
        yield
    finally:
        context.detach(token)
