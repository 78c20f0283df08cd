"""A handler that runs again must spawn the children that it has; a list that they change is recorded by a map."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

from django_agentexec import Attempt, Pipeline, SpawnMismatch, Status, activity, get_result, step, task
from django_agentexec.activity.rerun import Retry
from django_agentexec.activity.store import apply_one
from django_agentexec.models import Activity
from django_agentexec.testing import drain, make_attempt
from tests.support.activity_rows import row, start
from tests.support.research_family import FAILING, RUNS, Companies, Company, attempt_of, park, running_parent

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("family")]

PASSES: list[list[str]] = []
"""What a query finds in each pass of a handler; what is left after the last pass is found from then on."""

UNANSWERED: list[str] = []
"""What the children take away, one by one."""


class Answers(BaseModel):
    names: list[str]


@pytest.fixture(autouse=True)
def answering() -> None:
    PASSES.clear()
    UNANSWERED[:] = ["a", "b", "c"]

    @task("answer", max_retries=0)
    def answer(agent_id: UUID, context: Company) -> str:
        UNANSWERED.remove(context.name)
        return context.name


def companies() -> list[Company]:
    """Return what the query of this pass finds."""
    names = PASSES.pop(0) if len(PASSES) > 1 else PASSES[0]
    return [Company(name=name) for name in names]


# Handlers over data that changes, in all forms of spawning


async def one_by_one(agent_id: UUID, context: Companies, attempt: Attempt) -> list[str]:
    runs = [await attempt.aspawn("research", company) for company in companies()]
    return [brief.about for brief in await attempt.agather(*runs)]


async def with_keys(agent_id: UUID, context: Companies, attempt: Attempt) -> list[str]:
    runs = [await attempt.aspawn("research", company, key=company.name) for company in companies()]
    return [brief.about for brief in await attempt.agather(*runs)]


async def inside_gather(agent_id: UUID, context: Companies, attempt: Attempt) -> list[str]:
    calls = [attempt.aspawn("research", company, key=company.name) for company in companies()]
    return [brief.about for brief in await attempt.agather(*calls)]


async def concurrently(agent_id: UUID, context: Companies, attempt: Attempt) -> list[str]:
    calls = [attempt.aspawn("research", company, key=company.name) for company in companies()]
    return [brief.about for brief in await attempt.agather(*await asyncio.gather(*calls))]


def many_with_keys(agent_id: UUID, context: Companies, attempt: Attempt) -> list[str]:
    found = companies()
    runs = attempt.spawn_many("research", found, keys=[company.name for company in found])
    return [brief.about for brief in attempt.gather(*runs)]


def many(agent_id: UUID, context: Companies, attempt: Attempt) -> list[str]:
    return [brief.about for brief in attempt.gather(*attempt.spawn_many("research", companies()))]


class Steps(Pipeline, abstract=True):
    @step(0)
    async def first(self, context: Companies) -> Answers:
        return Answers(names=await with_keys(self.agent_id, context, self.attempt))


class SyncSteps(Pipeline, abstract=True):
    @step(0, max_retries=2, backoff=lambda retry, error: 0.0)
    def first(self, context: Companies) -> Answers:
        return Answers(names=many_with_keys(self.agent_id, context, self.attempt))


HANDLERS = [one_by_one, with_keys, inside_gather, concurrently, many_with_keys, many]
ORDERED = [one_by_one, with_keys, inside_gather, many_with_keys, many]


def run(handler: Callable[..., Any], *passes: list[str], max_retries: int = 3) -> UUID:
    PASSES[:] = passes
    agent_id = task("parent", max_retries=max_retries)(handler).enqueue(Companies()).agent_id
    drain()
    return agent_id


def run_steps(base: type[Pipeline], *passes: list[str]) -> UUID:
    class Parent(base, name="parent", max_retries=3):  # type: ignore[valid-type,misc]  # a parameter of the test
        pass

    PASSES[:] = passes
    agent_id: UUID = Parent.enqueue(Companies()).agent_id
    drain()
    return agent_id


def mismatch(agent_id: UUID) -> str:
    """Return the error of a parent that has failed at once, with nothing spawned by its second pass."""
    parent = row(agent_id)
    assert (parent.status, parent.attempt) == (Status.ERROR, 1)
    assert parent.error.startswith("SpawnMismatch: ")
    assert "attempt.map(" in parent.error
    assert "key" not in parent.error.split(": ", 2)[2]
    return parent.error


@pytest.mark.parametrize("handler", HANDLERS)
def test_fewer_children_are_a_mismatch(handler: Callable[..., Any]) -> None:
    error = mismatch(run(handler, ["a", "b", "c"], ["a", "b"]))

    assert "1 of 3 are missing" in error


@pytest.mark.parametrize("handler", [with_keys, inside_gather, concurrently, many_with_keys])
def test_what_is_missing_is_named(handler: Callable[..., Any]) -> None:
    assert "2 of 3 are missing ('/a', '/c')" in mismatch(run(handler, ["a", "b", "c"], ["b"]))


@pytest.mark.parametrize("handler", HANDLERS)
def test_additional_children_are_a_mismatch(handler: Callable[..., Any]) -> None:
    agent_id = run(handler, ["a", "b"], ["a", "b", "c"])

    assert "1 are additional" in mismatch(agent_id)
    assert row(agent_id).children.count() == (3 if handler is concurrently else 2)


@pytest.mark.parametrize("handler", ORDERED)
def test_reordered_children_are_a_mismatch(handler: Callable[..., Any]) -> None:
    error = mismatch(run(handler, ["a", "b", "c"], ["a", "c", "b"]))

    if handler not in (one_by_one, many):  # of those, the context of a number differs
        assert "the order differs ('/c' is where '/b' was)" in error


@pytest.mark.parametrize("base", [Steps, SyncSteps])
@pytest.mark.parametrize("second", [["a", "b"], ["a", "b", "c", "d"], ["b", "a", "c"]])
def test_a_step_must_spawn_the_same_children_too(base: type[Pipeline], second: list[str]) -> None:
    mismatch(run_steps(base, ["a", "b", "c"], second))


@pytest.mark.parametrize("handler", HANDLERS)
def test_the_same_children_are_gathered(handler: Callable[..., Any]) -> None:
    agent_id = run(handler, ["a", "b", "c"])

    assert row(agent_id).result == ["a", "b", "c"]


def test_a_retry_must_spawn_the_same_children_too() -> None:
    FAILING.add("c")
    error = row(run(with_keys, ["a", "b", "c"], ["a", "b", "c"], ["c"], max_retries=1)).error

    assert "2 of 3 are missing" in error


@pytest.mark.parametrize("is_async", [True, False])
def test_a_handler_that_returns_without_its_children_is_a_mismatch(is_async: bool) -> None:
    async def early(agent_id: UUID, context: Companies, attempt: Attempt) -> int:
        found = companies()
        if not found:
            return 0
        return len(await attempt.agather(*await attempt.aspawn_many("research", found)))

    def sync_early(agent_id: UUID, context: Companies, attempt: Attempt) -> int:
        found = companies()
        return len(attempt.gather(*attempt.spawn_many("research", found))) if found else 0

    assert "2 of 2 are missing" in mismatch(run(early if is_async else sync_early, ["a", "b"], []))


def test_a_step_that_returns_without_its_children_has_no_checkpoint() -> None:
    class Early(Pipeline, abstract=True):
        @step(0)
        async def first(self, context: Companies) -> Answers:
            found = companies()
            children = [await self.aspawn("research", company) for company in found]
            return Answers(names=[one.about for one in await self.agather(*children)] if found else [])

    mismatch(run_steps(Early, ["a", "b"], []))


# Gather without arguments


def test_a_gather_of_nothing_is_a_gather_of_all() -> None:
    assert row(run(many, ["a", "b", "c"], [])).result == ["a", "b", "c"]


@pytest.mark.parametrize("is_async", [True, False])
def test_all_children_are_gathered_however_few_are_spawned_again(is_async: bool) -> None:
    async def all_of_them(agent_id: UUID, context: Companies, attempt: Attempt) -> list[str]:
        for company in companies():
            await attempt.aspawn("research", company, key=company.name)
        return [brief.about for brief in await attempt.agather()]

    def sync_all_of_them(agent_id: UUID, context: Companies, attempt: Attempt) -> list[str]:
        for company in companies():
            attempt.spawn("research", company, key=company.name)
        return [brief.about for brief in attempt.gather()]

    agent_id = run(all_of_them if is_async else sync_all_of_them, ["a", "b", "c"], ["c", "b"])

    assert row(agent_id).result == ["a", "b", "c"]


def test_all_children_of_a_step_are_its_own() -> None:
    class Two(Pipeline, abstract=True):
        @step(0)
        async def first(self, context: Companies) -> Answers:
            await self.aspawn("research", Company(name="a"))
            return Answers(names=[one.about for one in await self.agather()])

        @step(1)
        def second(self, before: Answers) -> Answers:
            self.attempt.spawn("research", Company(name="b"))
            return Answers(names=before.names + [one.about for one in self.attempt.gather()])

    agent_id = run_steps(Two, [])

    assert row(agent_id).result == {"names": ["a", "b"]}


def test_all_children_are_those_that_were_spawned_before_it() -> None:
    async def in_two_waves(agent_id: UUID, context: Companies, attempt: Attempt) -> list[int]:
        await attempt.aspawn_many("research", [Company(name="a"), Company(name="b")])
        first = await attempt.agather()
        await attempt.aspawn("research", Company(name="c"), key="c")
        return [len(first), len(await attempt.agather())]

    assert row(run(in_two_waves, [])).result == [2, 3]


def test_a_handler_without_children_gathers_nothing() -> None:
    async def none(agent_id: UUID, context: Companies, attempt: Attempt) -> int:
        return len(await attempt.agather())

    assert row(run(none, [])).result == 0


# Map


async def amapped(agent_id: UUID, context: Companies, attempt: Attempt) -> list[str]:
    RUNS.append("pass")
    return list(await attempt.amap("answer", [Company(name=name) for name in UNANSWERED], key="name"))


def mapped(agent_id: UUID, context: Companies, attempt: Attempt) -> list[str]:
    RUNS.append("pass")
    return list(attempt.map("answer", (Company(name=name) for name in UNANSWERED), key=lambda company: company.name))


async def mapped_from_a_stream(agent_id: UUID, context: Companies, attempt: Attempt) -> list[str]:
    async def unanswered() -> AsyncIterator[Company]:
        for name in UNANSWERED:
            yield Company(name=name)

    RUNS.append("pass")
    return list(await attempt.amap("answer", unanswered()))


@pytest.mark.parametrize("handler", [amapped, mapped, mapped_from_a_stream])
def test_a_map_records_its_list_in_the_first_pass(handler: Callable[..., Any]) -> None:
    agent_id = run(handler, [])

    assert row(agent_id).result == ["a", "b", "c"]
    assert (RUNS, UNANSWERED) == (["pass", "pass"], [])


def test_the_children_of_a_map_have_readable_keys() -> None:
    agent_id = run(mapped, [])

    assert sorted(row(agent_id).children.values_list("spawn_key", flat=True)) == [
        "#answer*0/a",
        "#answer*0/b",
        "#answer*0/c",
    ]


@pytest.mark.parametrize("is_async", [True, False])
def test_a_map_works_in_a_step(is_async: bool) -> None:
    class Mapping(Pipeline, abstract=True):
        if is_async:

            @step(0)
            async def first(self, context: Companies) -> Answers:
                return Answers(names=await amapped(self.agent_id, context, self.attempt))
        else:

            @step(0)
            def first(self, context: Companies) -> Answers:
                return Answers(names=mapped(self.agent_id, context, self.attempt))

    assert row(run_steps(Mapping, [])).result == {"names": ["a", "b", "c"]}


def test_a_pipeline_has_map_unless_a_step_is_called_so() -> None:
    class Mapping(Pipeline, abstract=True):
        @step(0)
        async def first(self, context: Companies) -> Answers:
            return Answers(names=list(await self.amap("answer", [Company(name=name) for name in UNANSWERED])))

    class StepOfThatName(Pipeline, abstract=True):
        @step(0)
        async def map(self, context: Companies) -> Answers:  # type: ignore[override]  # of before there was a map
            return Answers(names=await mapped_in(self.attempt))

    assert row(run_steps(Mapping, [])).result == {"names": ["a", "b", "c"]}
    UNANSWERED[:] = ["a"]
    assert row(run_steps(StepOfThatName, [])).result == {"names": ["a"]}


async def mapped_in(attempt: Attempt) -> list[str]:
    return list(await attempt.amap("answer", [Company(name=name) for name in UNANSWERED]))


def test_an_empty_list_is_recorded_too() -> None:
    async def two_maps(agent_id: UUID, context: Companies, attempt: Attempt) -> list[int]:
        first = await attempt.amap("research", companies())
        second = await attempt.amap("research", companies())
        return [len(first), len(second)]

    assert row(run(two_maps, [], ["a", "b"], ["c"])).result == [0, 2]


def test_a_retry_runs_the_failed_children_of_a_map_again() -> None:
    async def mapped_once(agent_id: UUID, context: Companies, attempt: Attempt) -> list[str]:
        if attempt.number == 2:
            FAILING.clear()
        return [brief.about for brief in await attempt.amap("research", companies())]

    FAILING.add("b")
    agent_id = run(mapped_once, ["a", "b", "c"], [])

    assert (row(agent_id).status, row(agent_id).result) == (Status.COMPLETE, ["a", "b", "c"])
    assert (row(agent_id).attempt, RUNS.count("a"), RUNS.count("b")) == (2, 1, 2)


def test_errors_may_stand_among_the_results_of_a_map() -> None:
    async def tolerant(agent_id: UUID, context: Companies, attempt: Attempt) -> list[str]:
        found = await attempt.amap("research", companies(), return_exceptions=True)
        return [type(one).__name__ for one in found]

    FAILING.add("b")

    assert row(run(tolerant, ["a", "b"])).result == ["Brief", "TaskFailed"]


def test_a_map_takes_thousands() -> None:
    names = [str(number) for number in range(2_000)]
    attempt = running_parent()

    with pytest.raises(BaseException, match="waits for other activities"):
        attempt.map("research", (Company(name=name) for name in names), metadata={"org": 1})

    children = row(attempt.agent_id).children.order_by("spawn_position")
    assert [child.context["name"] for child in children] == names
    assert {child.metadata["org"] for child in children} == {1}
    children.update(status=Status.COMPLETE, result={"about": "x"})
    assert len(attempt_of(attempt.agent_id).map("research", [])) == 2_000


def test_a_map_whose_children_were_deleted_says_so() -> None:
    attempt = running_parent()
    with pytest.raises(BaseException, match="waits for other activities"):
        attempt.map("research", [Company(name="a"), Company(name="b")])
    row(attempt.agent_id).children.order_by("spawn_position")[0].delete()

    with pytest.raises(SpawnMismatch, match="1 of them have been deleted"):
        attempt_of(attempt.agent_id).map("research", [])


def test_a_map_inline_returns_the_results() -> None:
    UNANSWERED[:] = ["a", "b"]

    assert mapped(make_attempt().agent_id, Companies(), make_attempt()) == ["a", "b"]
    UNANSWERED[:] = ["a", "b"]
    assert asyncio.run(mapped_from_a_stream(make_attempt().agent_id, Companies(), make_attempt())) == ["a", "b"]


# What is no mismatch


def test_more_waves_follow_the_first() -> None:
    async def in_waves(agent_id: UUID, context: Companies, attempt: Attempt) -> list[str]:
        found: list[str] = []
        for name in "abc":
            (brief,) = await attempt.agather(attempt.aspawn("research", Company(name="".join([*found, name]))))
            found.append(brief.about)
        return found

    assert row(run(in_waves, [])).result == ["a", "ab", "aabc"]


def test_tasks_of_a_handler_may_be_at_different_waves() -> None:
    async def concurrent(agent_id: UUID, context: Companies, attempt: Attempt) -> list[str]:
        async def one(name: str, waves: int) -> str:
            for number in range(waves):
                await attempt.agather(await attempt.aspawn("research", Company(name=name), key=f"{name}{number}"))
            return name

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(company.name, waves)) for waves, company in enumerate(companies(), 1)]
        return [one.result() for one in tasks]

    assert row(run(concurrent, ["a", "b", "c"])).result == ["a", "b", "c"]
    assert "are missing" in mismatch(run(concurrent, ["a", "b", "c"], ["a"]))


def test_a_crash_before_the_wait_lets_the_rest_be_spawned() -> None:
    first = running_parent()
    first.spawn("research", Company(name="a"), key="a")

    again = attempt_of(first.agent_id)
    children = [again.spawn("research", Company(name=name), key=name) for name in "abc"]

    with pytest.raises(BaseException, match="waits for other activities"):
        again.gather(*children)


def test_a_crash_before_the_wait_does_not_hide_fewer_children() -> None:
    first = running_parent()
    first.spawn_many("research", [Company(name=name) for name in "abc"], keys=list("abc"))

    again = attempt_of(first.agent_id)

    with pytest.raises(SpawnMismatch, match=r"2 of 3 are missing \('/a', '/b'\)"):
        again.gather(again.spawn("research", Company(name="c"), key="c"))


def test_a_handler_that_gathers_nothing_may_spawn_fewer() -> None:
    async def sweep(agent_id: UUID, context: Companies, attempt: Attempt) -> str:
        for company in companies():
            await attempt.aspawn("research", company, key=company.name)
        if attempt.number == 1:
            raise ConnectionError("at first")
        return "swept"

    agent_id = run(sweep, ["a", "b"], ["b", "c"])

    assert (row(agent_id).result, sorted(RUNS)) == ("swept", ["a", "b", "c"])


def test_what_follows_a_failed_child_may_differ_once_it_has_run_again() -> None:
    async def tolerant(agent_id: UUID, context: Companies, attempt: Attempt) -> list[str]:
        (found,) = await attempt.agather(
            await attempt.aspawn("research", Company(name="a"), key="a"), return_exceptions=True
        )
        following = "fallback" if isinstance(found, Exception) else "regular"
        (second,) = await attempt.agather(await attempt.aspawn("research", Company(name=following), key=following))
        if following == "fallback":
            FAILING.clear()
            raise ConnectionError("after it all")
        return [found.about, second.about]

    FAILING.add("a")
    agent_id = run(tolerant, [])

    assert (row(agent_id).status, row(agent_id).result) == (Status.COMPLETE, ["a", "regular"])
    assert row(agent_id).attempt == 2


def test_children_of_an_older_release_are_found() -> None:
    first = running_parent()
    children = first.spawn_many("research", [Company(name=name) for name in "abc"], keys=list("abc"))
    park(first, *(child.agent_id for child in children))
    Activity.objects.update(spawn_position=None, fan_out=None)
    Activity.objects.filter(parent=first.agent_id).update(status=Status.COMPLETE, result={"about": "x"})
    Activity.objects.filter(pk=first.agent_id).update(blocking_child_id=None)

    again = attempt_of(first.agent_id)
    found = [again.spawn("research", Company(name=name), key=name) for name in "abc"]
    assert len(again.gather(*found)) == 3
    again.spawn("research", Company(name="d"), key="d")
    again.finish()

    once_more = attempt_of(first.agent_id)
    found = [once_more.spawn("research", Company(name=name), key=name) for name in "abc"]
    assert len(once_more.gather(*found)) == 3


def test_a_deleted_child_is_spawned_again() -> None:
    first = running_parent()
    children = first.spawn_many("research", [Company(name=name) for name in "abc"], keys=list("abc"))
    with pytest.raises(BaseException, match="waits for other activities") as wait:
        first.gather(*children)
    park_as_a_worker(first, wait.value)
    row(children[1].agent_id).delete()

    for _ in range(2):
        again = attempt_of(first.agent_id)
        found = [again.spawn("research", Company(name=name), key=name) for name in "abc"]
        with pytest.raises(BaseException, match="waits for other activities"):
            again.gather(*found)


def test_from_scratch_everything_may_differ() -> None:
    agent_id = run(with_keys, ["a", "b", "c"], ["d"])
    mismatch(agent_id)

    activity.retry(agent_id, from_scratch=True)
    drain()

    assert get_result(agent_id, timeout=0) == ["d"]


def test_a_retry_by_the_parent_is_no_retry_by_hand() -> None:
    attempt = running_parent()
    child = attempt.spawn("research", Company(name="a"))
    activity.cancel(child.agent_id)
    activity.cancel(attempt.agent_id)

    assert apply_one(Retry(agent_id=child.agent_id, by_parent=True)).status == Status.QUEUED


def park_as_a_worker(attempt: Attempt, wait: BaseException) -> None:
    """Suspend the parent, and start it again as if its children had ended."""
    Activity.objects.filter(pk=attempt.agent_id).update(fan_out=wait.fan_out)  # type: ignore[attr-defined]  # a `Parked`
    start(attempt.agent_id)
