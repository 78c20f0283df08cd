"""Traces: exported only with a key, flushed when a worker stops, named after the activity."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from agents import Agent, RunConfig, add_trace_processor, set_trace_provider
from agents.models.interface import ModelProvider
from agents.testing import ScriptedModel, assistant_message
from agents.tracing import Span, Trace, TracingProcessor, get_trace_provider
from agents.tracing.processors import default_exporter, default_processor
from agents.tracing.provider import DefaultTraceProvider

from django_agentexec import OpenAIRunner
from django_agentexec.runners.openai import tracing
from django_agentexec.runners.openai.defaults import with_defaults
from django_agentexec.signals import worker_started, worker_stopped
from tests.support.activity_recorder import ActivityRecorder


class Collecting(TracingProcessor):
    """Keeps the traces, as a processor of the project's own would."""

    def __init__(self) -> None:
        self.traces: list[dict[str, Any]] = []
        self.flushes = 0

    def on_trace_start(self, trace: Trace) -> None:
        self.traces.append(trace.export() or {})

    def on_trace_end(self, trace: Trace) -> None: ...
    def on_span_start(self, span: Span[Any]) -> None: ...
    def on_span_end(self, span: Span[Any]) -> None: ...
    def shutdown(self) -> None: ...

    def force_flush(self) -> None:
        self.flushes += 1


@pytest.fixture(autouse=True)
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[DefaultTraceProvider]:
    """The provider as the SDK makes it at first, with its own exporter."""
    monkeypatch.setattr(default_exporter(), "_api_key", None)
    monkeypatch.setitem(os.environ, "OPENAI_API_KEY", "key-for-models")
    before = get_trace_provider()
    fresh = DefaultTraceProvider()
    fresh.register_processor(default_processor())
    set_trace_provider(fresh)
    yield fresh
    set_trace_provider(before)


@pytest.fixture
def collecting(provider: DefaultTraceProvider) -> Collecting:
    processor = Collecting()
    add_trace_processor(processor)
    return processor


def agent() -> Agent[Any]:
    return Agent("Clerk", model=ScriptedModel([[assistant_message("Hello.")]]))


def processors(provider: DefaultTraceProvider) -> tuple[TracingProcessor, ...]:
    return provider._multi_processor._processors


# Whether traces leave the process


def test_without_a_key_a_worker_exports_nothing_but_to_the_projects_processors(
    provider: DefaultTraceProvider, collecting: Collecting
) -> None:
    worker_started.send(sender=None, worker="w1")

    assert processors(provider) == (collecting,)


async def test_without_a_key_a_run_outside_of_a_worker_exports_nothing(
    provider: DefaultTraceProvider, recorder: ActivityRecorder, collecting: Collecting
) -> None:
    await OpenAIRunner(uuid4()).run(agent(), "Hi")

    assert processors(provider) == (collecting,)
    assert default_processor()._queue.qsize() == 0
    assert len(collecting.traces) == 1


def test_with_a_key_the_exporter_stays_and_uses_it(
    provider: DefaultTraceProvider, collecting: Collecting, settings: Any
) -> None:
    settings.AGENTEXEC = {"TRACING_API_KEY": "key-for-traces"}

    worker_started.send(sender=None, worker="w1")

    assert processors(provider) == (default_processor(), collecting)
    assert default_exporter().api_key == "key-for-traces"


def test_an_sdk_that_hides_its_processors_traces_nothing(
    provider: DefaultTraceProvider, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(provider._multi_processor, "_processors")

    tracing.configure_tracing()

    assert provider._disabled
    assert "TRACING_API_KEY" in caplog.text


# What a worker does before it stops


def test_a_worker_flushes_before_it_stops(collecting: Collecting) -> None:
    worker_stopped.send(sender=None, worker="w1")

    assert collecting.flushes == 1


def test_a_worker_does_not_wait_long_for_a_flush(
    collecting: Collecting, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    released = threading.Event()
    monkeypatch.setattr(collecting, "force_flush", released.wait)
    monkeypatch.setattr(tracing, "FLUSH_TIMEOUT", 0.05)
    begun = time.monotonic()

    worker_stopped.send(sender=None, worker="w1")

    assert time.monotonic() - begun < 5
    assert "Could not export all traces within 0.05 seconds" in caplog.text
    released.set()


# What a trace is called


async def test_a_trace_carries_the_activity(recorder: ActivityRecorder, collecting: Collecting) -> None:
    agent_id = uuid4()

    await OpenAIRunner(agent_id).run(agent(), "Hi")

    (trace,) = collecting.traces
    assert trace["workflow_name"] == "Clerk"
    assert trace["group_id"] == str(agent_id)
    assert trace["metadata"] == {"agent_id": str(agent_id)}


@pytest.mark.parametrize("as_dictionary", [False, True])
async def test_the_users_names_are_kept(
    recorder: ActivityRecorder, collecting: Collecting, as_dictionary: bool
) -> None:
    agent_id = uuid4()
    names = {"workflow_name": "Research", "group_id": "chat-7", "trace_metadata": {"tenant": "acme"}}
    config: Any = dict(names) if as_dictionary else RunConfig(**names)  # type: ignore[arg-type]  # mixed values

    await OpenAIRunner(agent_id).run(agent(), "Hi", run_config=config)

    (trace,) = collecting.traces
    assert (trace["workflow_name"], trace["group_id"]) == ("Research", "chat-7")
    assert trace["metadata"] == {"tenant": "acme", "agent_id": str(agent_id)}
    assert config == names if as_dictionary else config.trace_metadata == {"tenant": "acme"}


# The other defaults of a run


def test_a_model_provider_made_by_the_sdk_stays_its_own_to_close() -> None:
    assert "model_provider" not in with_defaults(None, agent(), uuid4())  # type: ignore[operator]  # a dictionary


def test_the_users_model_provider_is_passed_on() -> None:
    class Provider(ModelProvider):
        def get_model(self, model_name: str | None) -> ScriptedModel:
            return ScriptedModel()

    provider = Provider()

    config = with_defaults(RunConfig(model_provider=provider), agent(), uuid4())

    assert isinstance(config, RunConfig)
    assert config.model_provider is provider
