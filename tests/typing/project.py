"""Tasks, results, pipelines and errors of a project, as type checkers see them.

Each `type: ignore` marks a mistake that a type checker must report: an unnecessary one is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, assert_type
from uuid import UUID

from pydantic import BaseModel

import django_agentexec as agentexec
from django_agentexec import (
    Attempt,
    Backoff,
    BaseAgentRunner,
    EnqueueOptions,
    OpenAIRunner,
    Pipeline,
    Priority,
    Run,
    Status,
    Task,
    Tracker,
    activities_changed,
    activity,
    activity_changed,
    activity_ended,
    aenqueue,
    aenqueue_many,
    agather,
    aget_result,
    enqueue,
    enqueue_many,
    gather,
    get_result,
    mermaid,
    step,
    task,
)
from django_agentexec.models import Activity, ActivityQuerySet


class Company(BaseModel):
    name: str


class Other(BaseModel):
    number: int


class Report(BaseModel):
    text: str


def may_research(user: Any, context: Company, metadata: Mapping[str, Any]) -> bool:
    return bool(user.is_active)


@task(
    "research",
    timeout=timedelta(minutes=5),
    priority="high",
    retry_on=ConnectionError,
    give_up_on=[ValueError, TypeError],
    backoff=Backoff(base=2),
    authorize=may_research,
)
async def research(agent_id: UUID, context: Company, attempt: Attempt) -> Report:
    await attempt.aprogress("Reading", 10)
    child = await attempt.aspawn(count, Other(number=1))
    assert_type(child, Run[int])
    return Report(text=context.name)


@task("count")
def count(agent_id: UUID, context: Other) -> int:
    return context.number


async def call_directly(agent_id: UUID, attempt: Attempt) -> None:
    assert_type(await research(agent_id, Company(name="a"), attempt), Report)
    assert_type(count(agent_id, Other(number=1)), int)
    count(agent_id, Company(name="a"))  # type: ignore[arg-type]


def enqueue_them() -> None:
    run = research.enqueue(Company(name="a"), priority="high", delay=timedelta(minutes=1), metadata={"tenant": 1})
    assert_type(run, Run[Report])
    assert_type(run.result(timeout=timedelta(seconds=3)), Report)
    assert_type(run.status, Status)
    assert_type(run.created, bool)
    assert_type(run.task, str)
    assert_type(get_result(run), Report)
    assert_type(get_result(run.agent_id, None), Any)
    assert_type(gather(run, count.enqueue(Other(number=1))), tuple[Report, int])
    assert_type(gather(*count.enqueue_many([Other(number=1)])), tuple[int, ...])
    assert_type(enqueue(research, Company(name="a")), Run[Report])
    assert_type(enqueue("research", Company(name="a")), Run[Any])
    assert_type(enqueue_many(count, [Other(number=1)]), list[Run[int]])
    assert_type(count.load_result(3), int)
    assert_type(research.load_result({"text": ""}), Report)
    run.refresh()
    run.cancel("No longer needed")
    run.retry(from_scratch=True)
    assert_type(run.status_url, str)
    assert_type(run.detail().agent_id, UUID)
    research.enqueue(Other(number=1))  # type: ignore[arg-type]
    enqueue(research, Other(number=1))  # type: ignore[misc]
    research.enqueue(Company(name="a"), priority="urgent")  # type: ignore[arg-type]


async def enqueue_in_async_code() -> None:
    run = await research.aenqueue(Company(name="a"))
    assert_type(await run.aresult(), Report)
    assert_type(await aget_result(run), Report)
    assert_type(await agather(run, await count.aenqueue(Other(number=1))), tuple[Report, int])
    assert_type(await aenqueue(count, Other(number=1)), Run[int])
    assert_type(await aenqueue_many(count, [Other(number=1)]), list[Run[int]])
    assert_type(await count.aenqueue_many([Other(number=1)]), list[Run[int]])
    await run.arefresh()
    await run.acancel()
    await run.aretry()
    assert_type((await run.adetail()).agent_id, UUID)


def options_of_all() -> EnqueueOptions:
    return {"priority": Priority.HIGH, "queue": "slow", "idempotency_key": "1", "delay": 3.0}


def rename(handler: Task[Company, ..., Any, Report]) -> Run[Report]:
    return handler.enqueue(Company(name="b"), **options_of_all())


def parallel(attempt: Attempt) -> int:
    children = attempt.spawn_many(count, [Other(number=1), Other(number=2)])
    assert_type(children, list[Run[int]])
    one, other = attempt.gather(attempt.spawn(count, Other(number=3)), attempt.spawn(research, Company(name="a")))
    assert_type((one, other), tuple[int, Report])
    run, of_other = attempt.spawn(research, Company(name="a")), attempt.spawn(count, Other(number=4))
    assert_type(attempt.gather(run, of_other, run, of_other), tuple[Report, int, Report, int])
    assert_type(attempt.gather(run, of_other, run, run, of_other), tuple[Report, int, Report, Report, int])
    attempt.spawn(count, Company(name="a"))  # type: ignore[misc]
    attempt.map(count, [Company(name="a")])  # type: ignore[misc]
    assert_type(attempt.map(count, [Other(number=1)], return_exceptions=True), tuple[Any, ...])
    assert_type(attempt.map("count", [Other(number=1)]), tuple[Any, ...])
    return sum(attempt.map(count, [Other(number=1)]))


async def parallel_in_async_code(attempt: Attempt) -> None:
    assert_type(await attempt.amap(count, [Other(number=1)]), tuple[int, ...])
    one, other = attempt.aspawn(count, Other(number=1)), attempt.aspawn(research, Company(name="a"))
    assert_type(await attempt.agather(one, other, one, other), tuple[int, Report, int, Report])
    await attempt.amap(count, [Company(name="a")])  # type: ignore[misc]


@task("publish")
def publish(agent_id: UUID, context: Report) -> Other:
    return Other(number=len(context.text))


class Study(Pipeline[Company, Report], max_retries=2):
    @step(0, "research")
    async def find(self, context: Company) -> Report:
        assert_type(await self.aspawn(count, Other(number=1)), Run[int])
        assert_type(await self.aspawn("count", Other(number=1)), Run[Any])
        assert_type(await self.agather(self.aspawn(count, Other(number=1))), tuple[int])
        assert_type(await self.amap(count, [Other(number=1)]), tuple[int, ...])
        await self.amap(count, [context])  # type: ignore[misc]
        return Report(text=context.name)

    def in_sync_code(self) -> None:
        assert_type(self.spawn_many(count, [Other(number=1)]), list[Run[int]])
        child = self.spawn(count, Other(number=1))
        other = self.spawn(research, Company(name="a"))
        assert_type(self.gather(child, other), tuple[int, Report])
        assert_type(self.gather(child, other, other, child, other), tuple[int, Report, Report, int, Report])
        assert_type(self.map(count, [Other(number=1)]), tuple[int, ...])
        self.map(count, [Company(name="a")])  # type: ignore[misc]
        self.spawn(count, Company(name="a"))  # type: ignore[misc]


class Untyped(Pipeline):
    @step(0, "research")
    async def find(self, context: Company) -> Report:
        return Report(text=context.name)


def pipelines(runner: BaseAgentRunner, openai: OpenAIRunner) -> None:
    run = Study.enqueue(Company(name="a"), priority="high")
    assert_type(run, Run[Report])
    assert_type(Study.run(Company(name="a")), Report)
    Study.enqueue(Other(number=1))  # type: ignore[arg-type]
    assert_type(Untyped.enqueue(Company(name="a")), Run[Any])
    assert_type(mermaid(run.agent_id), str)
    assert isinstance(openai, type(runner))


def canvas() -> None:
    acme, one = Company(name="a"), Other(number=1)
    assert_type(agentexec.group((research, acme), (research, acme)), Run[list[Report]])
    assert_type(agentexec.group((research, acme), (count, one)), Run[list[Report | int]])
    assert_type(agentexec.group(*[(count, one)], priority="low"), Run[list[int]])
    assert_type(agentexec.group(("research", acme)), Run[list[Any]])
    agentexec.group((research, one))  # type: ignore[misc]
    assert_type(agentexec.chain((research, acme)), Run[Report])
    assert_type(agentexec.chain((research, acme), publish), Run[Other])
    assert_type(agentexec.chain((research, acme), publish, count), Run[int])
    assert_type(agentexec.chain((research, acme), publish, count, publish, count), Run[Any])
    assert_type(agentexec.chain(("research", acme), "publish"), Run[Any])
    agentexec.chain((research, one), publish)  # type: ignore[misc]
    assert_type(agentexec.chord([(research, acme), (count, one)], publish, fields={"text": ""}), Run[Other])
    assert_type(agentexec.chord([("research", acme)], "publish"), Run[Any])
    calls = [(research, acme), (count, one)]
    assert_type(agentexec.chord(calls, publish), Run[Other])
    named = [(research, acme), ("count", one)]
    assert_type(agentexec.chord(named, publish), Run[Other])
    assert_type(agentexec.chord([(count, Other(number=number)) for number in range(3)], publish), Run[Other])
    agentexec.chord([research, count], publish)  # type: ignore[list-item]
    assert_type(agentexec.group((research, acme), (count, one), (research, acme), ("count", one)), Run[list[Any]])
    assert_type(agentexec.group(*calls), Run[list[Any]])


async def pipelines_in_async_code() -> None:
    acme = Company(name="a")
    assert_type(await Study.aenqueue(acme), Run[Report])
    assert_type(await Study.arun(acme), Report)
    assert_type(await agentexec.agroup((research, acme)), Run[list[Report]])
    assert_type(await agentexec.achain((research, acme), publish), Run[Other])
    assert_type(await agentexec.achord([(research, acme)], count), Run[int])
    calls = [(research, acme), (count, Other(number=1))]
    assert_type(await agentexec.achord(calls, count), Run[int])
    assert_type(await agentexec.agroup(*calls), Run[list[Any]])


@agentexec.idempotent_tool(ttl=timedelta(hours=1), scope="tenant")
def charge(amount: int) -> int:
    return amount if agentexec.tool_key() else 0


@agentexec.idempotent_tool(ttl=60)
async def refund(amount: int) -> Report:
    return Report(text=str(amount))


async def idempotent_tools() -> None:
    assert_type(await charge(5), int)
    assert_type(await refund(amount=5), Report)
    await refund("5")  # type: ignore[arg-type]


def runner_options(agent_id: UUID) -> OpenAIRunner:
    cache = agentexec.ModelCache(ttl=timedelta(hours=1))
    model = agentexec.ResilientModel([agentexec.ModelCandidate("gpt-5"), "gpt-5-mini"], cache=cache)
    return OpenAIRunner(agent_id, models=model, budget=agentexec.RunBudget(200_000, unit="tokens"))


async def decide(user: Any, id: UUID) -> None:
    agentexec.approvals.approve(id, by=user)
    agentexec.concurrency.pause("queue", "slow", actor=user)
    session = agentexec.DjangoSession("chat-1", owner=user)
    await session.aconversation()
    assert_type(await agentexec.amermaid(id), str)


def track(tracker: Tracker) -> None:
    tracker.add(research.enqueue(Company(name="a")))


def rows() -> None:
    assert_type(Activity.objects.active(), ActivityQuerySet)
    assert_type(Activity.objects.active().first(), Activity | None)
    Activity.objects.create(agent_type="research")


def receive(**kwargs: object) -> None:
    activity.cancel(UUID(int=1))


for signal in (
    activities_changed,
    activity_changed,
    activity_ended,
    agentexec.approval_decided,
    agentexec.approval_requested,
    agentexec.budget_threshold,
):
    signal.connect(receive)


def errors(run: agentexec.ActivityHandle[Report]) -> None:
    try:
        run.result(timeout=1)
    except agentexec.ResultTimeout as error:
        print(error.agent_id)
    except (agentexec.TaskFailed, agentexec.TaskCanceled, agentexec.ActivityNotFound) as error:
        print(error.agent_id)
    except (
        agentexec.ActivityLocked,
        agentexec.AgentExecError,
        agentexec.AlreadyDecided,
        agentexec.ApprovalNotFound,
        agentexec.ApprovalVoid,
        agentexec.BudgetExceeded,
        agentexec.ContextTooLarge,
        agentexec.EmbeddedServerError,
        agentexec.InvalidContext,
        agentexec.InvalidOption,
        agentexec.InvalidTransition,
        agentexec.ModelsUnavailable,
        agentexec.NotAuthorized,
        agentexec.PipelineChanged,
        agentexec.QueueMisconfigured,
        agentexec.QueueUnavailable,
        agentexec.ResultError,
        agentexec.ScheduleError,
        agentexec.SpawnMismatch,
        agentexec.StaleAttempt,
        agentexec.TaskDefinitionError,
        agentexec.UnhandledInterruption,
        agentexec.UnknownTask,
        agentexec.UserFacingError,
    ):
        raise


def former_name(handler: agentexec.TaskDefinition[..., Report]) -> Run[Any]:
    return handler.enqueue(Company(name="b"))
