"""OpenTelemetry: spans of recorded calls, in the trace of the code that has enqueued the activity."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from agents import Agent, function_tool
from agents.testing import ScriptedModel, function_call
from django.test import override_settings

from django_agentexec import Attempt, BaseAgentRunner, OpenAIRunner, task
from django_agentexec.models import Activity, AgentCall
from django_agentexec.signals import worker_stopped
from django_agentexec.telemetry import spans
from django_agentexec.testing import drain, memory_queue
from tests.support.contexts import Empty
from tests.support.scripted_models import say

pytest.importorskip("opentelemetry.sdk")

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as conventions

pytestmark = pytest.mark.django_db(transaction=True)

MEMORY = {"QUEUE_BACKEND": "django_agentexec.queues.memory.MemoryQueue"}
ATTEMPTS: list[int] = []


@function_tool
def look_up(name: str) -> str:
    """Look a name up."""
    with trace.get_tracer("project").start_as_current_span("register"):
        return f"{name} is secret"


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    ATTEMPTS.clear()
    with memory_queue():
        yield


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> TracerProvider:
    """A tracer provider of this test; OpenTelemetry's own can be set once per process."""
    assert spans.spans.flush(10)  # the calls of earlier tests
    provider = TracerProvider()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    return provider


@pytest.fixture
def exporter(provider: TracerProvider) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter


def agent(name: str, *steps: Any, **options: Any) -> Agent[Any]:
    return Agent(name, model=ScriptedModel(list(steps)), **options)


def call(name: str, call_id: str, /, **arguments: Any) -> Any:
    return [function_call(name, arguments, call_id=call_id)]


def run(handler: Callable[..., Any]) -> Activity:
    task("clerk", max_retries=2, backoff=lambda *_: 0.0)(handler).enqueue(Empty())
    drain()
    assert spans.spans.flush(10)
    return Activity.objects.get()


def fail_once() -> None:
    ATTEMPTS.append(1)
    if len(ATTEMPTS) == 1:
        raise ConnectionError("the first attempt fails")


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    found = {span.name: span for span in exporter.get_finished_spans()}
    assert len(found) == len(exporter.get_finished_spans()), "two spans have one name"
    return found


def parents(found: dict[str, ReadableSpan]) -> dict[str, str | None]:
    """Return the name of each span's parent."""
    names = {span.context.span_id: name for name, span in found.items()}
    return {name: names.get(span.parent.span_id, "?") if span.parent else None for name, span in found.items()}


async def check_acme(agent_id: UUID, context: Empty) -> str:
    boss = agent("Boss", call("look_up", "1", name="Acme"), say("Acme is fine."), tools=[look_up])
    result = await OpenAIRunner(agent_id).run(boss, "Check Acme.")
    return str(result.final_output)


def test_calls_are_spans_in_the_trace_of_the_enqueuing_code(exporter: InMemorySpanExporter) -> None:
    scripted = ScriptedModel([call("look_up", "1", name="Acme"), say("Acme is fine.")])

    async def handler(agent_id: UUID, context: Empty) -> None:
        with trace.get_tracer("project").start_as_current_span("handler"):
            pass
        boss = Agent("Boss", model=scripted, tools=[look_up])
        await OpenAIRunner(agent_id).run(boss, "Check Acme.")

    definition = task("clerk")(handler)
    with trace.get_tracer("project").start_as_current_span("request") as request:
        agent_id = definition.enqueue(Empty()).agent_id
    drain()
    assert spans.spans.flush(10)

    context = request.get_span_context()
    row = Activity.objects.get()
    assert row.traceparent == f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    assert {span.context.trace_id for span in exporter.get_finished_spans()} == {context.trace_id}
    named = {span.name: span for span in exporter.get_finished_spans()}
    assert [span.name for span in exporter.get_finished_spans()].count("chat ScriptedModel") == 2
    assert parents(named) == {
        "request": None,
        "handler": "request",
        "invoke_agent Boss": "request",
        "chat ScriptedModel": "invoke_agent Boss",
        "execute_tool look_up": "invoke_agent Boss",
        "register": "execute_tool look_up",
    }
    assert named["invoke_agent Boss"].kind == trace.SpanKind.INTERNAL
    assert named["chat ScriptedModel"].kind == trace.SpanKind.CLIENT
    tool = named["execute_tool look_up"]
    assert dict(tool.attributes or {}) == {
        conventions.GEN_AI_OPERATION_NAME: "execute_tool",
        conventions.GEN_AI_TOOL_NAME: "look_up",
        conventions.GEN_AI_TOOL_CALL_ID: "1",
        conventions.GEN_AI_TOOL_TYPE: "function",
        conventions.GEN_AI_AGENT_NAME: "Boss",
        "agentexec.agent_id": str(agent_id),
        "agentexec.task": "clerk",
        "agentexec.attempt": 1,
        "agentexec.path": "",
        "agentexec.state": "done",
    }
    chat = dict(named["chat ScriptedModel"].attributes or {})
    assert chat[conventions.GEN_AI_OPERATION_NAME] == "chat"
    assert chat[conventions.GEN_AI_PROVIDER_NAME] == "openai"
    assert chat[conventions.GEN_AI_REQUEST_MODEL] == "ScriptedModel"
    assert conventions.GEN_AI_USAGE_INPUT_TOKENS in chat
    assert conventions.GEN_AI_USAGE_OUTPUT_TOKENS in chat
    start, end = tool.start_time, tool.end_time
    assert start is not None
    assert end is not None
    stored = row.calls.get(kind="tool")
    assert (end - start) // 1000 == round((stored.duration or 0) * 1_000_000)


def test_an_activity_without_a_trace_begins_one_with_its_id(exporter: InMemorySpanExporter) -> None:
    row = run(check_acme)

    assert row.traceparent == ""
    named = {span.name: span for span in exporter.get_finished_spans()}
    assert {span.context.trace_id for span in named.values()} == {row.agent_id.int}
    assert parents(named)["invoke_agent Boss"] is None
    assert parents(named)["register"] == "execute_tool look_up"


def test_replayed_calls_have_no_further_span(exporter: InMemorySpanExporter) -> None:
    scripted = ScriptedModel([call("look_up", "1", name="Acme"), say("Acme is fine.")])

    async def handler(agent_id: UUID, context: Empty) -> None:
        await OpenAIRunner(agent_id).run(Agent("Boss", model=scripted, tools=[look_up]), "Check Acme.")
        fail_once()

    assert run(handler).attempt == 2
    names = sorted(span.name for span in exporter.get_finished_spans())
    assert names == [*["chat ScriptedModel"] * 2, "execute_tool look_up", "invoke_agent Boss", "register"]


def test_a_run_that_is_resumed_has_a_span_per_attempt(exporter: InMemorySpanExporter) -> None:
    scripted = ScriptedModel([call("look_up", "1", name="Acme"), ConnectionError("gone"), say("Acme is fine.")])

    async def handler(agent_id: UUID, context: Empty) -> None:
        await OpenAIRunner(agent_id).run(Agent("Boss", model=scripted, tools=[look_up]), "Check Acme.")

    assert run(handler).attempt == 2
    runs = [span for span in exporter.get_finished_spans() if span.name == "invoke_agent Boss"]
    assert len({span.context.span_id for span in runs}) == 2
    ids = {(span.attributes or {})["agentexec.attempt"]: span.context.span_id for span in runs}
    for span in exporter.get_finished_spans():
        if span.name.startswith(("chat", "execute_tool")):
            assert span.parent is not None
            assert span.parent.span_id == ids[(span.attributes or {})["agentexec.attempt"]]
    failed = [span for span in exporter.get_finished_spans() if "error.type" in (span.attributes or {})]
    assert not any(span.status.is_ok for span in failed)
    assert {span.name for span in failed} == {"invoke_agent Boss", "chat ScriptedModel"}
    assert all(span.status.description is None for span in failed)  # a text may quote the prompt
    assert {(span.attributes or {})["error.type"] for span in failed} == {"ConnectionError"}


def test_an_agent_that_is_a_tool_is_below_its_call(exporter: InMemorySpanExporter) -> None:
    helper_model = ScriptedModel([say("helped")])
    boss_model = ScriptedModel([call("help", "1", input="x"), say("done")])

    async def handler(agent_id: UUID, context: Empty) -> None:
        helper = Agent("Helper", model=helper_model)
        boss = Agent("Boss", model=boss_model, tools=[helper.as_tool("help", "Helps.")])
        await OpenAIRunner(agent_id).run(boss, "Go.")

    run(handler)

    found = parents({span.name: span for span in exporter.get_finished_spans()})
    assert found["invoke_agent Helper"] == "execute_tool help"
    assert found["execute_tool help"] == "invoke_agent Boss"


def test_a_side_effect_is_a_span(exporter: InMemorySpanExporter) -> None:
    def pay() -> int:
        with trace.get_tracer("project").start_as_current_span("bank"):
            return 7

    def handler(agent_id: UUID, context: Empty, attempt: Attempt) -> int:
        return attempt.once("pay", pay)

    run(handler)

    assert parents(by_name(exporter)) == {"once pay": None, "bank": "once pay"}


def test_another_framework_has_the_same_spans(exporter: InMemorySpanExporter) -> None:
    class Runner(BaseAgentRunner):
        async def run(self) -> None:
            async def answer() -> str:
                return "answer"

            async with self.recorded_run("Clerk") as run:
                await run.model_call("question", answer, model="small-1")
                await run.tool_call("1", "add", {}, lambda: 5)

    async def handler(agent_id: UUID, context: Empty) -> None:
        await Runner(agent_id).run()

    with override_settings(AGENTEXEC={**MEMORY, "OTEL_PROVIDER": "mistral_ai"}):
        run(handler)

    found = by_name(exporter)
    assert parents(found) == {
        "invoke_agent Clerk": None,
        "chat small-1": "invoke_agent Clerk",
        "execute_tool add": "invoke_agent Clerk",
    }
    assert (found["chat small-1"].attributes or {})[conventions.GEN_AI_PROVIDER_NAME] == "mistral_ai"


def shown(value: Any, field: str, call: AgentCall) -> Any:
    """Redact a value of a trace."""
    return json.loads(json.dumps(value).replace("secret", "[removed]"))


def fail_for_outputs(value: Any, field: str, call: AgentCall) -> Any:
    if field == "output":
        raise RuntimeError(str(value))
    return value


@pytest.mark.parametrize(
    ("settings", "expected", "missing"),
    [
        ({}, [], ["Check Acme", "secret", "is fine", "Acme"]),
        ({"OTEL_CONTENT": True}, ["Check Acme", "Acme is secret", "Acme is fine", '"Acme"'], []),
        ({"OTEL_CONTENT": True, "TRACE_CONTENT": "outputs"}, ["Acme is secret", "Acme is fine"], ["Check Acme"]),
        ({"OTEL_CONTENT": True, "TRACE_CONTENT": "none"}, [], ["Check Acme", "secret", "is fine"]),
        ({"OTEL_CONTENT": True, "TRACE_REDACT": f"{__name__}.shown"}, ["Acme is [removed]"], ["secret"]),
        ({"OTEL_CONTENT": True, "TRACE_REDACT": shown}, ["Acme is [removed]"], ["secret"]),
        ({"OTEL_CONTENT": True, "TRACE_REDACT": fail_for_outputs}, ["Check Acme"], ["secret", "is fine"]),
    ],
)
def test_content_is_in_spans_only_on_request(
    exporter: InMemorySpanExporter, settings: dict[str, Any], expected: list[str], missing: list[str]
) -> None:
    with override_settings(AGENTEXEC={**MEMORY, **settings}):
        run(check_acme)

    text = json.dumps([dict(span.attributes or {}) for span in exporter.get_finished_spans()]).replace("\\", "")
    assert [part for part in expected if part not in text] == []
    assert [part for part in missing if part in text] == []
    if settings.keys() <= {"OTEL_CONTENT"} and settings:
        (tool,) = (span for span in exporter.get_finished_spans() if span.name.startswith("execute_tool"))
        assert json.loads(str((tool.attributes or {})[conventions.GEN_AI_TOOL_CALL_ARGUMENTS])) == {"name": "Acme"}
        first, last = (span for span in exporter.get_finished_spans() if span.name.startswith("chat"))
        (message,) = json.loads(str((first.attributes or {})[conventions.GEN_AI_OUTPUT_MESSAGES]))
        assert message["finish_reason"] == "tool_call"
        assert message["parts"] == [{"type": "tool_call", "id": "1", "name": "look_up", "arguments": {"name": "Acme"}}]
        (message,) = json.loads(str((last.attributes or {})[conventions.GEN_AI_OUTPUT_MESSAGES]))
        assert message["parts"] == [{"type": "text", "content": "Acme is fine."}]


def test_a_setting_turns_spans_off(exporter: InMemorySpanExporter) -> None:
    with override_settings(AGENTEXEC={**MEMORY, "OTEL_SPANS": False}):
        run(check_acme)

    assert [span.name for span in exporter.get_finished_spans()] == ["register"]


def test_the_sampler_decides_about_the_whole_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    provider, exporter = TracerProvider(sampler=ParentBased(ALWAYS_OFF)), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)

    run(check_acme)

    assert exporter.get_finished_spans() == ()


def test_the_end_of_a_worker_exports_all_spans(provider: TracerProvider) -> None:
    exporter = InMemorySpanExporter()
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=3_600_000))
    run(check_acme)
    assert exporter.get_finished_spans() == ()

    worker_stopped.send(None, worker="test")

    assert {span.name for span in exporter.get_finished_spans()} >= {"invoke_agent Boss", "chat ScriptedModel"}


def test_a_child_belongs_to_the_trace_of_its_parent(exporter: InMemorySpanExporter) -> None:
    async def handler(agent_id: UUID, context: Empty, attempt: Attempt) -> None:
        if not ATTEMPTS:
            ATTEMPTS.append(1)
            await attempt.aspawn("clerk", Empty())

    definition = task("clerk")(handler)
    with trace.get_tracer("project").start_as_current_span("request"):
        definition.enqueue(Empty())
    drain()

    first, second = Activity.objects.values_list("traceparent", flat=True)
    assert first == second != ""
