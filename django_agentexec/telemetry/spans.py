"""Spans of recorded calls, by OpenTelemetry's semantic conventions for generative AI.

A span is created when the end of a call is committed: `invoke_agent` for a run, `chat` for a model call, `execute_tool`
for a tool call. Replayed calls have no further span.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from .. import __version__
from ..background import BatchingThread, start_daemon_thread
from ..calls.paths import clean, inside_call, joined
from ..conf import conf
from ..models import Activity, AgentCall, CallKind, CallState
from ..signals import calls_finished, worker_stopped
from .contents import content_of
from .context import key_inside, key_of_run, loaded_api, parent_key, parsed, root_flags, span_id_of

FLUSH_TIMEOUT = 5.0  # seconds that the end of a worker waits for the export, as for traces of the agents SDK
INTERVAL = 0.2  # seconds between two batches
MAX_WAITING = 10_000  # calls; the spans of further calls are dropped
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Spans(BatchingThread):
    """A thread that creates the spans of ended calls, since processors of spans may block."""

    thread_name = "agentexec-spans"

    def _reset(self) -> None:
        super()._reset()
        self._ended: list[tuple[Activity, AgentCall]] = []

    def record(self, activity: Activity, calls: Sequence[AgentCall]) -> None:
        """Record calls of an activity that have ended."""
        with self._lock:
            for call in calls:
                if len(self._ended) < MAX_WAITING:
                    self._ended.append((activity, copy.copy(call)))  # a retry of the call changes its row
            self._wake()

    def _process_batch(self) -> None:
        with self._lock:
            ended, self._ended = self._ended, []
        trace = loaded_api()
        provider = trace.get_tracer_provider()
        if isinstance(provider, trace.ProxyTracerProvider):
            return  # no SDK is configured
        tracer = provider.get_tracer("django_agentexec", __version__)
        if hasattr(tracer, "id_generator") and not isinstance(tracer.id_generator, _CallIds):
            tracer.id_generator = _CallIds(tracer.id_generator)
        for activity, call in ended:
            _create(trace, tracer, activity, call)

    def _interval(self) -> float:
        return INTERVAL


spans = Spans()


def install() -> None:
    """Create spans after commits, and export them before a worker ends."""
    calls_finished.connect(_on_finished, dispatch_uid="agentexec.telemetry.spans")
    worker_stopped.connect(flush, dispatch_uid="agentexec.telemetry.flush")


def flush(**signal: Any) -> None:
    """Create all spans, and let the SDK export them; wait at most `FLUSH_TIMEOUT` seconds."""
    trace = loaded_api()
    if trace is None:
        return
    spans.flush(FLUSH_TIMEOUT)
    force_flush = getattr(trace.get_tracer_provider(), "force_flush", None)
    if force_flush is not None:
        # Processors of a project may ignore the time limit.
        start_daemon_thread("agentexec-flush-spans", force_flush, int(1000 * FLUSH_TIMEOUT)).join(FLUSH_TIMEOUT)


def _on_finished(activity: Activity, calls: Sequence[AgentCall], **signal: Any) -> None:
    if loaded_api() is not None and conf.OTEL_SPANS:
        spans.record(activity, calls)


def _create(trace: Any, tracer: Any, activity: Activity, call: AgentCall) -> None:
    agent_id, attempt = activity.agent_id, activity.attempt
    origin = parsed(trace, activity.traceparent)
    trace_id = origin.trace_id if origin is not None else agent_id.int
    flags = origin.trace_flags if origin is not None else root_flags(trace, trace_id)
    above = parent_key(call)
    if above is not None:
        origin = trace.SpanContext(trace_id, span_id_of(agent_id, attempt, above), is_remote=True, trace_flags=flags)
    context = trace.set_span_in_context(trace.NonRecordingSpan(origin or trace.INVALID_SPAN_CONTEXT))
    with _next_ids(trace_id, _own_span_id(agent_id, attempt, call)):
        span = tracer.start_span(
            _name(call),
            context,
            trace.SpanKind.CLIENT if call.kind == CallKind.MODEL else trace.SpanKind.INTERNAL,
            _attributes(activity, call),
            start_time=_nanoseconds(call.started_at),
        )
    if call.state == CallState.FAILED:
        description = call.error if conf.OTEL_CONTENT else None  # exceptions may quote prompts
        span.set_status(trace.Status(trace.StatusCode.ERROR, description))
    span.end(_nanoseconds(call.finished_at or call.started_at))


def _own_span_id(agent_id: UUID, attempt: int, call: AgentCall) -> int | None:
    """Return the id that the calls inside a call take for their parent's, or None for calls that enclose none."""
    if call.kind == CallKind.AGENT:
        return span_id_of(agent_id, attempt, key_of_run(call.path))
    if call.kind == CallKind.TOOL:
        return span_id_of(agent_id, attempt, key_inside(inside_call(call.path, call.ordinal, call.call_id)))
    if call.kind == CallKind.ONCE:
        return span_id_of(agent_id, attempt, key_inside(joined(call.path, f"/once:{clean(call.call_id)}")))
    return None


def _name(call: AgentCall) -> str:
    operation, subject = _OPERATIONS[CallKind(call.kind)], call.agent if call.kind == CallKind.AGENT else call.name
    return f"{operation} {subject}".strip()


_OPERATIONS = {
    CallKind.AGENT: "invoke_agent",
    CallKind.MODEL: "chat",
    CallKind.TOOL: "execute_tool",
    CallKind.ONCE: "once",
}


def _attributes(activity: Activity, call: AgentCall) -> dict[str, Any]:
    values: dict[str, Any] = {
        "agentexec.agent_id": str(activity.agent_id),
        "agentexec.task": activity.agent_type,
        "agentexec.attempt": activity.attempt,
        "agentexec.path": call.path,
        "agentexec.state": str(call.state),
    }
    if call.kind != CallKind.ONCE:
        values["gen_ai.operation.name"] = _OPERATIONS[CallKind(call.kind)]
    if call.agent:
        values["gen_ai.agent.name"] = call.agent
    if call.kind in (CallKind.AGENT, CallKind.MODEL):
        values["gen_ai.provider.name"] = conf.OTEL_PROVIDER
    if call.kind == CallKind.MODEL:
        values |= _model_attributes(call)
    elif call.kind == CallKind.TOOL:
        values |= {"gen_ai.tool.name": call.name, "gen_ai.tool.call.id": call.call_id, "gen_ai.tool.type": "function"}
    if call.state == CallState.FAILED:
        values["error.type"] = call.error.partition(":")[0] or "_OTHER"
    return values | (content_of(call) if conf.OTEL_CONTENT else {})


def _model_attributes(call: AgentCall) -> dict[str, Any]:
    values: dict[str, Any] = {"gen_ai.request.model": call.name}
    if call.state == CallState.DONE:
        values |= {
            "gen_ai.usage.input_tokens": call.input_tokens,
            "gen_ai.usage.output_tokens": call.output_tokens,
            "gen_ai.usage.cache_read.input_tokens": call.cached_tokens,
            "gen_ai.usage.reasoning.output_tokens": call.reasoning_tokens,
        }
    response_id = call.output.get("response_id") if isinstance(call.output, dict) else None
    if response_id:
        values["gen_ai.response.id"] = response_id
    if call.is_cached:
        values["agentexec.cached"] = True
    if call.cost is not None:
        values["agentexec.cost"] = float(call.cost)
    return values


def _nanoseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000


class _Next(threading.local):
    """The ids of the next span of this thread."""

    trace_id: int | None = None
    span_id: int | None = None


_next = _Next()


class _next_ids:  # a context manager
    def __init__(self, trace_id: int, span_id: int | None) -> None:
        self._ids = trace_id, span_id

    def __enter__(self) -> None:
        _next.trace_id, _next.span_id = self._ids

    def __exit__(self, *error: object) -> None:
        _next.trace_id = _next.span_id = None


class _CallIds:
    """An id generator for the package's tracer: the ids of calls, and those of `inner` for all other spans."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def generate_span_id(self) -> int:
        """Return the id of the next span."""
        found: int = _next.span_id or self._inner.generate_span_id()
        return found

    def generate_trace_id(self) -> int:
        """Return the id of the next trace."""
        found: int = _next.trace_id or self._inner.generate_trace_id()
        return found

    def is_trace_id_random(self) -> bool:
        """Return whether ids of traces are random; those of activities begin with the time."""
        return False
