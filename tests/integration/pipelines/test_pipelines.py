"""Pipelines: steps in order, each finished one kept, resumed after the last, whatever came in between."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from datetime import timedelta
from functools import wraps
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from django.test import TestCase
from pydantic import BaseModel

from django_agentexec import (
    AgentExecError,
    Attempt,
    InvalidContext,
    InvalidOption,
    InvalidTransition,
    Pipeline,
    StaleAttempt,
    Status,
    TaskFailed,
    activity,
    amermaid,
    get_result,
    mermaid,
    step,
    task,
)
from django_agentexec.activity.store import apply_one
from django_agentexec.activity.suspension import Defer
from django_agentexec.activity.transitions import Operation
from django_agentexec.models import Activity, StepRun
from django_agentexec.pipelines.execution import run_steps
from django_agentexec.tasks import registry
from django_agentexec.testing import drain, memory_queue
from tests.support.activity_rows import messages, row, start
from tests.support.attempts import worker_attempt
from tests.support.pool_process import until

pytestmark = pytest.mark.django_db(transaction=True)

RUNS: list[str] = []
FAILING: dict[str, int] = {}  # step to how often it still fails


class Input(BaseModel):
    company: str = "Acme"


class Brand(BaseModel):
    name: str


class Market(BaseModel):
    size: float


class Note(BaseModel):
    text: str


class Report(BaseModel):
    text: str


def ran(name: str) -> None:
    RUNS.append(name)
    if FAILING.get(name, 0):
        FAILING[name] -= 1
        raise ValueError(f"{name} failed")


def define() -> type[Pipeline]:
    class ResearchPipeline(Pipeline, max_retries=0):
        @step(0, "parallel research")
        async def gather_data(self, context: Input) -> tuple[Brand, Market]:
            ran("gather_data")
            return Brand(name=context.company), Market(size=1e16)

        @step(1, "analysis")
        def analyze(self, brand: Brand, market: Market) -> Note:
            ran("analyze")
            return Note(text=f"{brand.name}: {market.size:g}")

        @step(2)
        async def write(self, note: Note) -> Report:
            ran("write")
            return Report(text=note.text.upper())

    return ResearchPipeline


@pytest.fixture(autouse=True)
def tasks() -> Iterator[None]:
    RUNS.clear()
    FAILING.clear()
    with memory_queue():
        yield


def enqueued(pipeline: type[Pipeline], **context: Any) -> UUID:
    return pipeline.enqueue(Input(**context)).agent_id


def states(agent_id: UUID) -> dict[str, str]:
    return dict(StepRun.objects.filter(activity_id=agent_id).values_list("name", "state"))


# The whole way


def test_a_pipeline_is_a_task_whose_result_is_the_last_steps() -> None:
    pipeline = define()
    agent_id = enqueued(pipeline)

    drain()

    assert pipeline.task.name == "research_pipeline"
    assert get_result(agent_id, timeout=0) == Report(text="ACME: 1E+16")
    assert RUNS == ["gather_data", "analyze", "write"]


class InsideATestCase(TestCase):
    def test_a_pipeline_runs_in_a_test_case(self) -> None:
        agent_id = enqueued(define())

        drain()

        assert row(agent_id).status == Status.COMPLETE


def test_the_log_says_which_step_runs_and_the_progress_is_the_steps_share() -> None:
    agent_id = enqueued(define())

    drain()

    lines = list(activity.detail(agent_id).logs)
    assert [(line.message, line.percentage) for line in lines[2:-1]] == [
        ("Step 1 of 3: parallel research", 0),
        ("Step 2 of 3: analysis", 33),
        ("Step 3 of 3: write", 66),
    ]


def test_a_steps_own_progress_is_within_its_share() -> None:
    class FourSteps(Pipeline):
        @step(0)
        def one(self, context: Input) -> Note:
            return Note(text="")

        @step(1)
        async def two(self, note: Note) -> Note:
            await self.attempt.aprogress("by the attempt", 50)
            await activity.aupdate(self.agent_id, "by the verb", percentage=100)
            return note

        @step(2)
        def three(self, note: Note) -> Note:
            self.attempt.progress("in a thread", 50)
            return note

        @step(3)
        def four(self, note: Note) -> Note:
            return note

    agent_id = enqueued(FourSteps)

    drain()

    percentages = {line.message: line.percentage for line in activity.detail(agent_id).logs}
    assert (percentages["by the attempt"], percentages["by the verb"], percentages["in a thread"]) == (37, 50, 62)


def test_an_attempt_after_finished_steps_begins_with_the_last_percentage() -> None:
    class Failing(Pipeline, max_retries=1, backoff=lambda *_: 0.0):
        @step(0)
        def one(self, context: Input) -> Note:
            return Note(text="")

        @step(1)
        def two(self, note: Note) -> Note:
            ran("two")
            return note

    FAILING["two"] = 1
    agent_id = enqueued(Failing)

    drain()

    lines = activity.detail(agent_id).logs
    assert [line.percentage for line in lines if line.message == "Task started."] == [0, 50]


def test_a_step_may_produce_nothing_and_take_nothing() -> None:
    class Silent(Pipeline):
        @step(0)
        def prepare(self, context: Input) -> None:
            ran("prepare")

        @step(1)
        def report(self) -> Report:
            assert isinstance(self.context, Input)
            return Report(text=self.context.company)

    assert Silent.run(Input()) == Report(text="Acme")


# Resuming


def test_a_retry_goes_on_after_the_last_finished_step() -> None:
    FAILING["write"] = 1
    agent_id = enqueued(define())
    drain()
    assert row(agent_id).status == Status.ERROR

    activity.retry(agent_id)
    drain()

    assert row(agent_id).status == Status.COMPLETE
    assert RUNS == ["gather_data", "analyze", "write", "write"]


def test_another_process_goes_on_where_a_crash_came() -> None:
    pipeline = define()
    agent_id = enqueued(pipeline)
    FAILING["analyze"] = 1
    attempt = running_attempt(agent_id)
    with pytest.raises(ValueError, match="analyze failed"):
        asyncio.run(run_steps(pipeline, Input(), attempt))

    result = asyncio.run(run_steps(pipeline, Input(), running_attempt(agent_id, fence=2)))

    assert result == Report(text="ACME: 1E+16")
    assert RUNS == ["gather_data", "analyze", "analyze", "write"]


def running_attempt(agent_id: UUID, fence: int = 1) -> Attempt:
    from concurrent.futures import Future

    start(agent_id, fence)

    def write(operation: Operation) -> Future[Activity]:
        future: Future[Activity] = Future()
        thread = threading.Thread(target=lambda: _apply(future, operation))
        thread.start()
        thread.join()
        return future

    def _apply(future: Future[Activity], operation: Operation) -> None:
        from django.db import connections

        try:
            future.set_result(apply_one(operation))
        except Exception as error:
            future.set_exception(error)
        finally:
            connections.close_all()

    return worker_attempt(agent_id, row(agent_id).attempt, fence, write)


def test_an_attempt_that_lost_its_activity_finishes_no_step() -> None:
    pipeline = define()
    agent_id = enqueued(pipeline)
    stale = running_attempt(agent_id)
    start(agent_id, fence=2)

    with pytest.raises(StaleAttempt):
        asyncio.run(run_steps(pipeline, Input(), stale))

    assert states(agent_id) == {}


def test_a_finished_step_forgives_the_crashes_before_it() -> None:
    agent_id = enqueued(define())
    Activity.objects.update(crashes=2)

    drain()

    assert row(agent_id).discounted_crashes == 2


# Changed code


def test_a_step_that_is_new_runs_and_what_its_input_does_not_change_is_kept() -> None:
    FAILING["write"] = 1
    agent_id = enqueued(define())
    drain()
    registry.unregister("research_pipeline")

    class ResearchPipeline(Pipeline, max_retries=0):
        @step(0, "parallel research")
        async def gather_data(self, context: Input) -> tuple[Brand, Market]:
            raise AssertionError("finished")

        @step(5)
        def analyze(self, brand: Brand, market: Market) -> Note:
            raise AssertionError("finished")

        @step(10)
        def check(self, note: Note) -> Note:
            ran("check")
            return note

        @step(20)
        def write(self, note: Note) -> Report:
            ran("write")
            return Report(text=note.text)

    activity.retry(agent_id)
    drain()

    assert row(agent_id).result == {"text": "Acme: 1e+16"}
    assert RUNS == ["gather_data", "analyze", "write", "check", "write"]


class Longer(BaseModel):
    text: str
    words: int


class WithDefault(BaseModel):
    text: str
    words: int = 0


class Other(BaseModel):
    title: str = ""


@pytest.mark.parametrize(("model", "fits"), [(WithDefault, True), (Longer, False), (Other, False)])
def test_a_changed_type_is_kept_or_refused_by_what_it_can_hold(model: type[BaseModel], fits: bool) -> None:
    FAILING["write"] = 1
    agent_id = enqueued(define())
    drain()
    registry.unregister("research_pipeline")

    def gather_data(self: Pipeline, context: Input) -> tuple[Brand, Market]:
        raise AssertionError("finished")

    def analyze(self: Pipeline, brand: Brand, market: Market) -> Note:
        raise AssertionError("finished")

    def write(self: Pipeline, note: Note) -> Report:
        return Report(text=note.text)

    analyze.__annotations__["return"] = write.__annotations__["note"] = model
    steps = {method.__name__: step(n)(method) for n, method in enumerate((gather_data, analyze, write))}
    type("Changed", (Pipeline,), steps, name="research_pipeline", max_retries=2)

    activity.retry(agent_id)
    drain()

    stored = row(agent_id)
    if fits:
        assert stored.status == Status.COMPLETE
    else:
        assert (stored.status, stored.retries) == (Status.ERROR, 0)
        assert f"Step 'analyze' has a stored result of type Note, but now declares {model.__name__}" in stored.error


# Retry from a step


def test_a_pipeline_is_repeated_from_a_step_on() -> None:
    agent_id = enqueued(define())
    drain()

    activity.retry(agent_id, from_step="analyze")
    assert row(agent_id).result is None
    drain()

    assert row(agent_id).status == Status.COMPLETE
    assert RUNS == ["gather_data", "analyze", "write", "analyze", "write"]


def test_a_pipeline_is_repeated_from_scratch() -> None:
    agent_id = enqueued(define())
    drain()

    activity.retry(agent_id, from_scratch=True)
    drain()

    assert RUNS == ["gather_data", "analyze", "write"] * 2


def test_a_step_that_has_not_run_is_refused_by_name() -> None:
    FAILING["analyze"] = 1
    agent_id = enqueued(define())
    drain()

    with pytest.raises(InvalidOption, match="no step 'write' that has started; started steps: gather_data, analyze"):
        activity.retry(agent_id, from_step="write")

    assert row(agent_id).status == Status.ERROR


def test_a_complete_pipeline_is_not_retried_without_a_choice() -> None:
    agent_id = enqueued(define())
    drain()

    with pytest.raises(InvalidTransition):
        activity.retry(agent_id)
    with pytest.raises(InvalidOption):
        activity.retry(agent_id, from_step="analyze", from_scratch=True)


# Tries of a step


def flaky(retries: int, delay: float) -> type[Pipeline]:
    """Define a pipeline of one step with its own retries."""

    class Flaky(Pipeline, max_retries=0):
        @step(0, max_retries=retries, backoff=lambda retry, error: delay)
        async def only(self, context: Input) -> Report:
            ran("only")
            return Report(text=context.company)

    return Flaky


def test_a_step_is_tried_again_within_the_attempt() -> None:
    FAILING["only"] = 2
    agent_id = enqueued(flaky(retries=2, delay=0.01))

    drain()

    assert (row(agent_id).status, row(agent_id).attempt, RUNS) == (Status.COMPLETE, 1, ["only"] * 3)
    assert "Step only failed: ValueError: only failed. Next try in 0.0 s." in messages(agent_id)
    assert StepRun.objects.get().tries == 3


class Busy(Exception):
    """As providers' exceptions: a server that is to be left alone for a while."""

    response = SimpleNamespace(headers={"Retry-After": "30"})


def test_a_step_that_has_to_wait_gives_up_its_slot_and_resumes_the_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: list[Operation] = []

    def record(operation: Operation) -> Activity:
        written.append(operation)
        return apply_one(operation)

    monkeypatch.setattr("django_agentexec.testing.apply_one", record)

    class Waits(Pipeline, max_retries=0):
        @step(0)
        async def first(self, context: Input) -> Report:
            ran("first")
            return Report(text=context.company)

        @step(1, max_retries=1)
        async def second(self, report: Report) -> Report:
            RUNS.append("second")
            if RUNS.count("second") == 1:
                raise Busy
            return report

    agent_id = enqueued(Waits)
    drain()

    (deferral,) = [each for each in written if isinstance(each, Defer)]
    assert deferral.delay == 30.0
    assert (row(agent_id).status, row(agent_id).attempt, row(agent_id).retries) == (Status.COMPLETE, 1, 0)
    assert RUNS == ["first", "second", "second"]
    assert StepRun.objects.get(name="second").tries == 2
    (line,) = [message for message in messages(agent_id) if message.startswith("Step second failed")]
    assert re.search(r"Next try in 30\.0 s, at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC\.", line)


def test_a_deferred_activity_is_due_when_its_wait_ends() -> None:
    agent_id = enqueued(flaky(retries=1, delay=0.0))
    start(agent_id)

    deferred = apply_one(Defer(agent_id=agent_id, fence=1, delay=60.0))

    assert deferred.status == Status.QUEUED
    assert deferred.run_after is not None
    assert deferred.run_after - deferred.updated_at == timedelta(seconds=60)


def test_a_step_that_fails_too_often_fails_the_attempt() -> None:
    FAILING["only"] = 9
    agent_id = enqueued(flaky(retries=1, delay=0.0))

    drain()

    assert (row(agent_id).error, len(RUNS)) == ("ValueError: only failed", 2)
    assert states(agent_id) == {"only": "error"}


def test_what_the_pipeline_gives_up_on_is_not_tried_again() -> None:
    class Flaky(Pipeline, give_up_on=[ValueError]):
        @step(0, max_retries=5)
        async def only(self, context: Input) -> Report:
            ran("only")
            return Report(text=context.company)

    FAILING["only"] = 9
    enqueued(Flaky)

    drain()

    assert RUNS == ["only"]


@pytest.mark.parametrize("is_async", [True, False])
def test_a_step_has_a_time_limit(is_async: bool) -> None:
    async def slow(self: Pipeline, context: Input) -> Report:
        await asyncio.Event().wait()
        return Report(text="")

    def slow_in_a_thread(self: Pipeline, context: Input) -> Report:
        until(lambda: self.attempt.canceled, "the time limit")
        return Report(text="")

    method = slow if is_async else slow_in_a_thread
    method.__name__ = "slow"
    pipeline = type("SlowPipeline", (Pipeline,), {"slow": step(0, timeout=0.05)(method)}, max_retries=0)
    agent_id = enqueued(pipeline)

    drain()

    assert row(agent_id).error == "TimeoutError: Step 'slow' took longer than 0.05 s."


def test_a_result_of_another_type_is_an_error_at_once() -> None:
    class Wrong(Pipeline):
        @step(0, max_retries=3)
        def only(self, context: Input) -> Report:
            ran("only")
            return Note(text="x")  # type: ignore[return-value]  # the mistake

    agent_id = enqueued(Wrong)

    drain()

    assert "Step 'only' returned Note, which does not fit Report" in row(agent_id).error
    assert (RUNS, row(agent_id).attempt) == (["only"], 1)


# Children of steps


def define_with_children() -> type[Pipeline]:
    @task("summarize", max_retries=0)
    def summarize(agent_id: UUID, context: Note) -> Note:
        ran(context.text)
        return Note(text=context.text.upper())

    class Fanned(Pipeline, max_retries=0):
        @step(0)
        async def first(self, context: Input) -> Note:
            ran("first")
            found = await self.agather(*(self.aspawn("summarize", Note(text=text)) for text in "ab"))
            return Note(text="".join(one.text for one in found))

        @step(1, max_retries=1, backoff=lambda retry, error: 0.0)
        def second(self, note: Note) -> Report:
            ran("second")
            children = self.spawn_many("summarize", [Note(text=text) for text in "cd"])
            return Report(text=note.text + "".join(one.text for one in self.gather(*children)))

    return Fanned


def test_steps_wait_for_their_children_and_only_the_waiting_step_runs_again() -> None:
    agent_id = enqueued(define_with_children())

    drain()

    assert row(agent_id).result == {"text": "ABCD"}
    assert RUNS == ["first", "a", "b", "first", "second", "c", "d", "second"]
    assert {run.tries for run in StepRun.objects.all()} == {1}


def test_a_retry_of_the_step_repeats_its_failed_children() -> None:
    FAILING["d"] = 1
    agent_id = enqueued(define_with_children())

    drain()

    assert row(agent_id).result == {"text": "ABCD"}
    assert (RUNS.count("c"), RUNS.count("d"), row(agent_id).attempt) == (1, 2, 1)


def test_a_repeated_step_gets_children_of_its_own() -> None:
    agent_id = enqueued(define_with_children())
    drain()
    RUNS.clear()

    activity.retry(agent_id, from_step="second")
    drain()

    assert RUNS == ["second", "c", "d", "second"]
    assert row(agent_id).children.count() == 6


def nothing_found(self: Pipeline, context: Input) -> Report:
    return next(iter(()))


@pytest.mark.parametrize("run", ["queued", "inline"])
def test_a_stop_iteration_in_a_step_is_an_error(run: str) -> None:
    pipeline = type("Searching", (Pipeline,), {"nothing_found": step(0)(nothing_found)}, max_retries=0)

    if run == "inline":
        with pytest.raises(RuntimeError, match="raised StopIteration"):
            pipeline.run(Input())
    else:
        agent_id = enqueued(pipeline)
        drain()
        assert "raised StopIteration" in row(agent_id).error


def test_a_sync_decorator_around_an_async_step_is_awaited() -> None:
    async def write(self: Pipeline, context: Input) -> Report:
        return Report(text=context.company)

    @wraps(write)
    def decorated(*arguments: Any) -> Any:
        return write(*arguments)

    pipeline = type("Decorated", (Pipeline,), {"write": step(0)(decorated)}, max_retries=0)

    assert pipeline.run(Input()) == Report(text="Acme")


# Inline, for tests


def test_a_pipeline_runs_inline() -> None:
    assert define().run(Input(company="Globex")) == Report(text="GLOBEX: 1E+16")
    assert not Activity.objects.exists()


async def test_a_pipeline_runs_inline_in_async_code() -> None:
    assert await define().arun(Input()) == Report(text="ACME: 1E+16")


def test_children_run_inline_too() -> None:
    assert define_with_children().run(Input()) == Report(text="ABCD")


def test_an_error_of_a_step_is_raised_as_it_is() -> None:
    FAILING["analyze"] = 1

    with pytest.raises(ValueError, match="analyze failed"):
        define().run(Input())


def test_an_error_of_a_child_is_raised_by_gather() -> None:
    FAILING["b"] = 1

    with pytest.raises(TaskFailed, match="ValueError: b failed"):
        define_with_children().run(Input())


def test_a_wrong_context_is_refused() -> None:
    with pytest.raises(InvalidContext, match="takes a Input, not a Note"):
        define().run(Note(text=""))


def test_a_pipeline_that_does_not_run_has_no_attempt() -> None:
    with pytest.raises(AgentExecError, match="does not run"):
        _ = define()().attempt


# The diagram


def test_a_diagram_shows_each_steps_state_and_time() -> None:
    FAILING["analyze"] = 1
    agent_id = enqueued(define())
    drain()

    text = mermaid(agent_id)

    assert text.splitlines()[0] == "flowchart LR"
    assert 's0["1. parallel research<br/>complete, 0.' in text
    assert 's1["2. analysis<br/>error, 0.' in text
    assert 's2["3. write<br/>pending"]:::pending' in text
    assert "s0 --> s1\n    s1 --> s2" in text


def test_a_title_cannot_break_out_of_the_diagram() -> None:
    class Odd(Pipeline):
        @step(0, 'a"]; click s0 "javascript:x" <b>')
        def only(self, context: Input) -> Report:
            return Report(text="")

    text = mermaid(enqueued(Odd))

    assert 's0["1. a#quot;]; click s0 #quot;javascript:x#quot; #lt;b#gt;<br/>pending"]:::pending' in text


def test_a_plain_task_has_no_diagram() -> None:
    from tests.testapp.agents import Text, shout

    assert mermaid(shout.enqueue(Text()).agent_id) == ""


async def test_a_diagram_is_available_in_async_code() -> None:
    run = await define().aenqueue(Input())

    assert (await amermaid(run.agent_id)).startswith("flowchart LR")


def test_a_step_whose_input_has_changed_gets_children_of_its_own() -> None:
    FAILING["d"] = 2
    agent_id = enqueued(define_with_children())
    drain()
    assert row(agent_id).status == Status.ERROR
    StepRun.objects.filter(name="second").update(input_digest="of another input")
    Activity.objects.filter(context={"text": "c"}).update(context={"text": "of another input"})

    FAILING.clear()
    activity.retry(agent_id)
    drain()

    assert row(agent_id).result == {"text": "ABCD"}
