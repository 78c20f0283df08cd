"""The testing helpers, inside the transaction of a TestCase and without one."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Group
from django.core.exceptions import SynchronousOnlyOperation
from django.db import transaction
from django.test import TestCase
from pydantic import BaseModel

from django_agentexec import Attempt, InvalidOption, Status, TaskFailed, activity, aget_result, get_result, task
from django_agentexec.models import Activity
from django_agentexec.queues import get_queue
from django_agentexec.queues.memory import MemoryQueue
from django_agentexec.tasks import AnyTask, registry
from django_agentexec.testing import aassert_enqueued, adrain, assert_enqueued, drain, make_attempt, memory_queue
from tests.support.activity_rows import messages, row
from tests.testapp.agents import Text, fail, report, shout

LOCAL: list[AnyTask] = []


class Name(BaseModel):
    name: str


def define_tasks() -> None:
    @task("make_group")
    def make_group(agent_id: UUID, context: Name, attempt: Attempt) -> str:
        Group.objects.create(name=context.name)
        activity.update(agent_id, "by the verb", percentage=30)
        with transaction.atomic():
            attempt.progress("by the attempt", 60)
        return Group.objects.get().name

    @task("amake_group")
    async def amake_group(agent_id: UUID, context: Name, attempt: Attempt) -> int:
        await Group.objects.acreate(name=context.name)
        await activity.aupdate(agent_id, "by the verb", percentage=30)
        await attempt.aprogress("by the attempt", 60)
        return await Group.objects.acount()

    @task("chain")
    def chain(agent_id: UUID, context: Name) -> None:
        make_group.enqueue(context)

    @task("third_time_lucky")
    def third_time_lucky(agent_id: UUID, context: Name, attempt: Attempt) -> int:
        if attempt.number < 3:
            raise ConnectionError("not yet")
        return attempt.number

    @task("leaves")
    def leaves(agent_id: UUID, context: Name) -> None:
        raise SystemExit(1)

    @task("forgot_the_await", max_retries=0)
    async def forgot_the_await(agent_id: UUID, context: Name) -> None:
        activity.update(agent_id, "blocks the loop")

    @task("ends_itself")
    def ends_itself(agent_id: UUID, context: Name) -> str:
        activity.complete(agent_id, result="first")
        return "second"

    @task("finds_nothing", max_retries=0)
    def finds_nothing(agent_id: UUID, context: Name) -> int:
        return next(iter(()))

    @task("finds_nothing_in_a_thread", max_retries=0)
    async def finds_nothing_in_a_thread(agent_id: UUID, context: Name) -> int:
        return await asyncio.to_thread(next, iter(()))

    LOCAL[:] = [make_group, amake_group, chain, third_time_lucky, leaves, forgot_the_await, ends_itself]
    LOCAL.extend([finds_nothing, finds_nothing_in_a_thread])


@pytest.fixture(autouse=True)
def local_tasks() -> None:
    define_tasks()


def enqueue(name: str) -> UUID:
    return registry.get(name).enqueue(Name(name="staff")).agent_id


class InsideATestCase(TestCase):
    """Nothing is ever committed here."""

    def setUp(self) -> None:
        self.enterContext(memory_queue())

    def test_a_stop_iteration_ends_up_on_the_row(self) -> None:
        ids = [enqueue("finds_nothing"), enqueue("finds_nothing_in_a_thread")]

        drain()

        for agent_id in ids:
            assert "raised StopIteration" in row(agent_id).error

    def test_tasks_run_where_the_test_sees_what_they_do(self) -> None:
        for name in ("make_group", "amake_group"):
            with self.subTest(name):
                Group.objects.all().delete()
                agent_id = enqueue(name)

                assert drain() == 1

                assert Group.objects.get().name == "staff"
                assert row(agent_id).status == Status.COMPLETE
                assert messages(agent_id)[2:4] == ["by the verb", "by the attempt"]

    def test_results_are_there_in_their_type(self) -> None:
        handle = report.enqueue(Text(text="hello big world"))

        drain()

        assert get_result(handle, timeout=0).words == 3

    def test_what_a_task_enqueues_runs_too(self) -> None:
        enqueue("chain")

        assert drain() == 2
        assert Group.objects.count() == 1

    def test_what_a_handler_enqueues_has_its_activity_as_parent(self) -> None:
        parent = row(enqueue("chain"))

        drain()

        assert [child.agent_type for child in parent.children.all()] == ["make_group"]
        assert parent.parent is None

    def test_a_failure_is_on_the_row(self) -> None:
        handle = fail.enqueue(Text(text="boom"))

        drain()

        with self.assertRaisesMessage(TaskFailed, "RuntimeError: boom"):
            get_result(handle, timeout=0)

    def test_retries_do_not_wait(self) -> None:
        agent_id = enqueue("third_time_lucky")

        assert drain() == 3
        assert (row(agent_id).result, row(agent_id).retries) == (3, 2)

    def test_an_exit_is_a_failure(self) -> None:
        agent_id = enqueue("leaves")

        drain()

        assert row(agent_id).error == "SystemExit: 1"

    def test_a_forgotten_await_is_an_error_and_no_deadlock(self) -> None:
        agent_id = enqueue("forgot_the_await")

        drain()

        assert row(agent_id).error.startswith(SynchronousOnlyOperation.__name__)

    def test_a_task_that_ends_itself_keeps_its_own_result(self) -> None:
        agent_id = enqueue("ends_itself")

        drain()

        assert (row(agent_id).status, row(agent_id).result) == (Status.COMPLETE, "first")

    def test_what_is_not_due_stays(self) -> None:
        registry.get("make_group").enqueue(Name(name="staff"), delay=60)

        assert drain() == 0

    def test_only_the_queues_that_are_named_are_drained(self) -> None:
        shout.enqueue(Text(), queue="slow")

        assert (drain(), drain("slow")) == (0, 1)

    async def test_async_tests_drain_too(self) -> None:
        made, amade = await sync_to_async(enqueue)("make_group"), await report.aenqueue(Text(text="hello big world"))

        assert await adrain() == 2

        assert (await Group.objects.aget()).name == "staff"
        assert (await aget_result(amade, timeout=0)).words == 3
        assert (await Activity.objects.aget(pk=made)).status == Status.COMPLETE

    async def test_drain_in_an_async_test_names_its_async_form(self) -> None:
        with self.assertRaisesMessage(RuntimeError, "await adrain()"):
            drain()

    def test_an_enqueued_task_is_found_by_its_context(self) -> None:
        shout.enqueue(Text(text="a"))
        second = shout.enqueue(Text(text="b"), queue="slow")
        drain()

        assert assert_enqueued(shout).agent_id == second.agent_id
        assert assert_enqueued("shout", text="b").queue == "slow"

    def test_a_missing_enqueue_names_what_was_enqueued(self) -> None:
        with self.assertRaisesMessage(AssertionError, "shout(text='b') was not enqueued. Nothing was enqueued."):
            assert_enqueued(shout, text="b")
        shout.enqueue(Text(text="a"))
        report.enqueue(Text(text="b"))

        expected = "shout(text='b') was not enqueued. These activities exist:\n- shout(text='a'"
        with self.assertRaisesMessage(AssertionError, expected):
            assert_enqueued(shout, text="b")

    def test_a_long_list_of_activities_is_shortened(self) -> None:
        for number in range(12):
            shout.enqueue(Text(text=str(number)))

        with self.assertRaisesMessage(AssertionError, "The latest 10 of 12 activities are:\n- shout(text='2'"):
            assert_enqueued(shout, text="b")

    def test_a_misspelt_field_is_no_missing_enqueue(self) -> None:
        with self.assertRaisesMessage(TypeError, "Text, the context of 'shout', has no 'txet'"):
            assert_enqueued(shout, txet="b")

    async def test_an_enqueued_task_is_found_in_async_code(self) -> None:
        await shout.aenqueue(Text(text="a"))

        assert (await aassert_enqueued(shout, text="a")).agent_type == "shout"

    def test_nothing_of_the_test_before_is_left(self) -> None:
        assert (Activity.objects.count(), drain()) == (0, 0)


@pytest.mark.django_db(transaction=True)
def test_committed_work_is_drained_too() -> None:
    with memory_queue():
        agent_id = enqueue("amake_group")

        assert drain() == 1

    assert row(agent_id).result == 1


@pytest.mark.django_db(transaction=True)
async def test_committed_work_is_drained_in_async_code() -> None:
    with memory_queue():
        read_counters = await registry.get("amake_group").aenqueue(Name(name="staff"))
        reported = await report.aenqueue(Text(text="hello big world"))

        assert await adrain("default") == 2

        assert await aget_result(read_counters, timeout=0) == 1
        assert (await aget_result(reported, timeout=0)).words == 3


def test_the_memory_queue_ends_with_its_block() -> None:
    with memory_queue():
        inside = get_queue()

    assert isinstance(inside, MemoryQueue)
    assert not isinstance(get_queue(), MemoryQueue)


@pytest.mark.django_db
def test_an_attempt_for_direct_calls_inside_a_transaction() -> None:
    """A `TestCase` is one transaction, in which a worker's attempt on SQLite writes its row by itself."""
    make_attempt().progress("half", 50)


def test_the_children_of_such_an_attempt_run_where_they_are_spawned() -> None:
    attempt = make_attempt()
    child = attempt.spawn(shout, Text(text="x"))

    assert attempt.gather(child) == ("X",)


def test_an_attempt_for_direct_calls() -> None:
    attempt = make_attempt(number=2)

    attempt.progress("half", 50)
    asyncio.run(attempt.aprogress("more", 60))
    attempt.cancel()

    assert (attempt.number, attempt.canceled) == (2, True)
    with pytest.raises(InvalidOption):
        attempt.progress("too much", 101)
