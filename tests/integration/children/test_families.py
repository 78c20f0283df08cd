"""What becomes of children when their parent ends, and of the parent: cancel, failure, retry."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest

from django_agentexec import Attempt, InvalidTransition, Pipeline, Status, activity, step, task
from django_agentexec.models import Activity
from django_agentexec.pool.reconciler import reconcile
from django_agentexec.queues import Ack, Outcome, get_queue
from django_agentexec.testing import drain
from tests.support.activity_rows import claimed_ids, complete, fail, row, start
from tests.support.research_family import (
    FAILING,
    RUNS,
    Brief,
    Companies,
    Company,
    attempt_of,
    claimed_parent,
    defined,
    discover,
    parent_of,
    park,
    running_parent,
)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("family")]


def test_a_cancel_takes_the_whole_family() -> None:
    attempt = running_parent()
    child = attempt.spawn("discover", Companies())
    start(child.agent_id)
    grandchild = attempt_of(child.agent_id).spawn("research", Company(name="Acme"))
    park(attempt, child.agent_id)

    activity.cancel(attempt.agent_id)

    assert [row(one.agent_id).status for one in (child, grandchild)] == [Status.CANCELED] * 2
    assert grandchild.agent_id not in claimed_ids()


def test_a_failure_takes_the_children_that_still_run() -> None:
    attempt = running_parent()
    child = attempt.spawn("research", Company(name="Acme"))

    fail(attempt.agent_id)

    assert row(child.agent_id).status == Status.CANCELED


def test_a_success_leaves_children_that_nobody_waited_for() -> None:
    attempt = running_parent()
    child = attempt.spawn("research", Company(name="Acme"))

    complete(attempt.agent_id)

    assert row(child.agent_id).status == Status.QUEUED


def test_a_cancel_leaves_what_was_enqueued_and_not_spawned() -> None:
    attempt = running_parent()
    other = defined("research").enqueue(Company(name="Acme"))
    Activity.objects.filter(pk=other.agent_id).update(parent=attempt.agent_id)

    activity.cancel(attempt.agent_id)

    assert row(other.agent_id).status == Status.QUEUED


def test_the_reconciler_cancels_orphans() -> None:
    attempt = running_parent()
    child = attempt.spawn("research", Company(name="Acme"))
    Activity.objects.filter(pk=attempt.agent_id).update(status=Status.CANCELED)  # a crash came in between

    reconcile()

    assert row(child.agent_id).status == Status.CANCELED


def test_a_retry_of_the_parent_repeats_what_failed_and_keeps_what_succeeded() -> None:
    FAILING.add("Globex")
    agent_id = parent_of()
    drain()
    FAILING.clear()
    RUNS.clear()

    activity.retry(agent_id)
    drain()

    assert row(agent_id).result == ["Acme", "Globex"]
    assert RUNS == ["discover", "Globex", "discover"]
    assert row(agent_id).children.count() == 2


def test_an_automatic_retry_of_the_parent_repeats_what_failed_too() -> None:
    FAILING.add("Globex")
    task("discover", max_retries=1)(discover)
    agent_id = parent_of()

    drain()

    assert row(agent_id).attempt == 2
    assert RUNS.count("Globex") == 2
    assert RUNS.count("Acme") == 1


def test_a_parked_parent_can_be_canceled_and_retried() -> None:
    agent_id = parent_of()
    held, attempt = claimed_parent(agent_id)
    park(attempt, attempt.spawn("research", Company(name="Acme")).agent_id)
    get_queue().ack_and_claim("default", "w", [Ack(held, Outcome.DONE)])
    activity.cancel(agent_id)

    activity.retry(agent_id)
    drain()

    assert (row(agent_id).status, row(agent_id).result) == (Status.COMPLETE, ["Acme", "Globex"])


# What is final


class Hopeless(Exception):
    """An error that no retry cures."""


def give_up(agent_id: UUID, context: Company) -> None:
    RUNS.append(context.name)
    raise Hopeless(context.name)


async def collect(agent_id: UUID, context: Companies, attempt: Attempt) -> list[str]:
    RUNS.append("collect")
    found = await attempt.agather(
        *[await attempt.aspawn("hopeless", Company(name=name)) for name in context.names],
        return_exceptions=context.tolerant,
    )
    if context.tolerant:
        raise ConnectionError("worth a retry")
    return [str(one) for one in found]


def hopeless_parent(**context: Any) -> UUID:
    task("hopeless", max_retries=3, give_up_on=[Hopeless])(give_up)
    task("collect", max_retries=3)(collect)
    return defined("collect").enqueue(Companies(names=["Acme"], **context)).agent_id


def test_a_child_that_was_given_up_on_is_final_for_its_parent() -> None:
    agent_id = hopeless_parent()

    drain()

    assert (row(agent_id).status, row(agent_id).attempt) == (Status.ERROR, 1)
    assert RUNS == ["collect", "Acme", "collect"]


def test_it_is_final_in_a_group_of_errors_too() -> None:
    async def grouped(agent_id: UUID, context: Companies, attempt: Attempt) -> None:
        child = await attempt.aspawn("hopeless", Company(name="Acme"))
        async with asyncio.TaskGroup() as group:
            group.create_task(attempt.agather(child))

    hopeless_parent()
    Activity.objects.all().delete()
    agent_id = task("grouped", max_retries=3)(grouped).enqueue(Companies()).agent_id

    drain()

    assert (row(agent_id).status, row(agent_id).attempt, RUNS) == (Status.ERROR, 1, ["Acme"])


def test_a_parent_that_is_retried_for_another_error_does_not_run_it_again() -> None:
    agent_id = hopeless_parent(tolerant=True)

    drain()

    assert (row(agent_id).status, row(agent_id).attempt) == (Status.ERROR, 4)
    assert RUNS.count("Acme") == 1


def test_a_retry_of_the_parent_by_hand_runs_it_again() -> None:
    agent_id = hopeless_parent()
    drain()
    RUNS.clear()

    activity.retry(agent_id)
    drain()

    assert RUNS == ["collect", "Acme", "collect"]


def test_so_does_a_retry_of_many() -> None:
    agent_id = hopeless_parent()
    drain()
    RUNS.clear()

    outcome = activity.retry_many(Activity.objects.filter(pk=agent_id))
    drain()

    assert (outcome.done, RUNS.count("Acme")) == ([agent_id], 1)


def test_a_final_end_passes_through_all_generations() -> None:
    hopeless_parent()
    Activity.objects.all().delete()
    task("top", max_retries=3)(top)
    agent_id = defined("top").enqueue(Companies(names=["Acme"])).agent_id

    drain()

    assert (row(agent_id).status, row(agent_id).attempt, RUNS.count("Acme")) == (Status.ERROR, 1, 1)


async def top(agent_id: UUID, context: Companies, attempt: Attempt) -> None:
    await attempt.agather(await attempt.aspawn("collect", context))


def test_a_step_is_not_tried_again_for_a_child_that_was_given_up_on() -> None:
    class Steps(Pipeline, max_retries=2, name="steps"):
        @step(0, max_retries=2, backoff=lambda retry, error: 0.0)
        async def only(self, context: Companies) -> Brief:
            await self.agather(self.aspawn("hopeless", Company(name="Acme")))
            return Brief(about="")

    hopeless_parent()
    Activity.objects.all().delete()
    agent_id = Steps.enqueue(Companies()).agent_id

    drain()

    assert (row(agent_id).status, row(agent_id).attempt, RUNS.count("Acme")) == (Status.ERROR, 1, 1)


def test_a_child_that_was_canceled_by_itself_is_not_run_again_by_its_parents_retries() -> None:
    async def waits(agent_id: UUID, context: Companies, attempt: Attempt) -> None:
        child = await attempt.aspawn("research", Company(name="Acme"))
        await activity.acancel(child.agent_id)
        await attempt.agather(child)

    handle = task("waits", max_retries=3)(waits).enqueue(Companies())

    drain()

    assert (row(handle.agent_id).status, row(handle.agent_id).attempt, RUNS) == (Status.ERROR, 1, [])


def test_a_grandchild_that_was_canceled_with_its_parent_runs_again_with_it() -> None:
    async def fails_at_first(agent_id: UUID, context: Companies, attempt: Attempt) -> str:
        children = await attempt.aspawn_many("research", [Company(name=name) for name in context.names])
        if RUNS.count("middle") == 0:
            RUNS.append("middle")
            raise ConnectionError("at first")
        return str(await attempt.agather(*children))

    async def outer(agent_id: UUID, context: Companies, attempt: Attempt) -> str:
        (found,) = await attempt.agather(await attempt.aspawn("middle", context))
        return str(found)

    task("middle", max_retries=0)(fails_at_first)
    handle = task("outer", max_retries=1)(outer).enqueue(Companies())

    drain()

    assert (row(handle.agent_id).status, row(handle.agent_id).attempt) == (Status.COMPLETE, 2)


# A child that is retried by hand


def failed_family() -> tuple[UUID, UUID]:
    FAILING.add("Acme")
    agent_id = parent_of()
    drain()
    FAILING.clear()
    return agent_id, row(agent_id).children.get(status=Status.ERROR).agent_id


def test_the_retry_of_a_child_whose_parent_has_failed_is_refused() -> None:
    parent, child = failed_family()

    with pytest.raises(InvalidTransition, match=f"is a child of {parent}.* Retry the parent") as refusal:
        activity.retry(child)

    assert refusal.value.reason == "its parent has failed or was canceled; retry the parent"
    assert row(child).status == Status.ERROR


def test_so_is_its_repetition_from_scratch() -> None:
    _, child = failed_family()

    with pytest.raises(InvalidTransition, match="Retry the parent"):
        activity.retry(child, from_scratch=True)


def test_many_are_retried_but_for_the_children_which_their_parent_runs_again() -> None:
    parent, child = failed_family()

    outcome = activity.retry_many(Activity.objects.failed())
    drain()

    assert outcome.done == [parent]
    assert outcome.refused == {"its parent has failed or was canceled; retry the parent": 1}
    assert [row(one).status for one in (parent, child)] == [Status.COMPLETE] * 2


def test_a_child_whose_parent_waits_or_is_complete_may_be_retried() -> None:
    attempt = running_parent()
    failed, other = attempt.spawn_many("research", [Company(name="Acme"), Company(name="Globex")])
    park(attempt, failed.agent_id, other.agent_id)
    start(failed.agent_id)
    fail(failed.agent_id)

    activity.retry(failed.agent_id)
    drain()

    assert row(failed.agent_id).status == Status.COMPLETE
    assert row(attempt.agent_id).result == ["Acme", "Globex"]
