"""Fan-out: results gathered in order, by a parent that is run again when the last of its children has ended."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from uuid import UUID

import pytest
from django.db import connection, transaction
from django.test import TestCase
from django.test.utils import CaptureQueriesContext

from django_agentexec import Attempt, InvalidOption, Status, TaskCanceled, TaskFailed, activity, get_result, task
from django_agentexec.activity.suspension import Suspended
from django_agentexec.models import Activity, HookFlag
from django_agentexec.testing import drain
from tests.support.activity_rows import WRITES_OF_A_BATCH, complete, messages, row, start
from tests.support.research_family import (
    FAILING,
    RUNS,
    Companies,
    Company,
    defined,
    finish,
    parent_of,
    park,
    running_parent,
)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("family")]


# The whole way


@pytest.mark.parametrize("name", ["discover", "sync_discover"])
def test_a_parent_gets_the_results_of_its_children_in_order(name: str) -> None:
    agent_id = parent_of(name)

    drain()

    assert row(agent_id).result == ["Acme", "Globex"]
    assert RUNS == ["discover", "Acme", "Globex", "discover"]
    assert {child.agent_type for child in row(agent_id).children.all()} == {"research"}


def test_a_wait_is_one_attempt_and_charges_no_retry() -> None:
    agent_id = parent_of()

    drain()

    assert (row(agent_id).attempt, row(agent_id).retries) == (1, 0)
    assert messages(agent_id) == [
        "Waiting to start.",
        "Task started.",
        "Waiting for 2 activities.",
        "All child activities have finished.",
        "Task resumed.",
        "Task completed successfully.",
    ]


class InsideATestCase(TestCase):
    """Nothing is ever committed here."""

    def test_parents_and_children_run_in_a_test_case(self) -> None:
        agent_id = parent_of()

        drain()

        assert row(agent_id).result == ["Acme", "Globex"]

    def test_the_children_of_a_canceled_parent_do_not_run(self) -> None:
        attempt = running_parent()
        child = attempt.spawn("research", Company(name="Acme"))
        activity.cancel(attempt.agent_id)

        drain()

        assert (row(child.agent_id).status, RUNS) == (Status.CANCELED, [])


def test_waiting_tasks_of_a_group_wait_together() -> None:
    async def both(agent_id: UUID, context: Companies, attempt: Attempt) -> list[str]:
        async def one(name: str) -> str:
            (brief,) = await attempt.agather(await attempt.aspawn("research", Company(name=name), key=name))
            return str(brief.about)

        async with asyncio.TaskGroup() as group:
            found = [group.create_task(one(name)) for name in context.names]
        return [task.result() for task in found]

    definition = task("both", max_retries=0)(both)
    handle = definition.enqueue(Companies())

    drain()

    assert get_result(handle, timeout=0) == ["Acme", "Globex"]


# Gather


def test_gather_waits_for_spawned_children_only() -> None:
    attempt = running_parent()
    other = defined("research").enqueue(Company(name="Acme"))

    with pytest.raises(InvalidOption, match="was not spawned by"):
        attempt.gather(other)


def test_a_list_of_children_is_to_be_unpacked() -> None:
    attempt = running_parent()

    with pytest.raises(TypeError, match=r"gather\(\*runs\)"):
        attempt.gather([attempt.spawn("research", Company(name="Acme"))])  # type: ignore[arg-type]  # the mistake


def test_a_wait_inside_a_transaction_of_the_handlers_is_refused() -> None:
    def in_a_transaction(agent_id: UUID, context: Companies, attempt: Attempt) -> None:
        with transaction.atomic():
            attempt.gather(attempt.spawn("research", Company(name="Acme")))

    definition = task("in_a_transaction", max_retries=0)(in_a_transaction)
    agent_id = definition.enqueue(Companies()).agent_id

    drain()

    assert row(agent_id).error.startswith("TransactionManagementError")
    assert "gather after the block" in row(agent_id).error


def test_an_except_exception_does_not_stop_the_wait() -> None:
    attempt = running_parent()
    child = attempt.spawn("research", Company(name="Acme"))

    def handler() -> None:
        with suppress(Exception):
            attempt.gather(child)

    with pytest.raises(Suspended):
        handler()


def test_a_failed_child_fails_its_parent() -> None:
    FAILING.add("Globex")
    agent_id = parent_of()

    drain()

    with pytest.raises(TaskFailed, match=r"TaskFailed: Activity .* ValueError: Globex"):
        get_result(agent_id, timeout=0)


def test_failures_may_stand_among_the_results() -> None:
    FAILING.add("Acme")
    agent_id = parent_of(tolerant=True)

    drain()

    assert row(agent_id).result == ["TaskFailed", "Globex"]


def test_a_canceled_child_wakes_its_parent() -> None:
    attempt = running_parent()
    child = attempt.spawn("research", Company(name="Acme"))
    park(attempt, child.agent_id)

    activity.cancel(child.agent_id)

    assert row(attempt.agent_id).status == Status.QUEUED
    with pytest.raises(TaskCanceled):
        attempt.gather(child)


# What it costs those who have no family


def test_the_end_of_an_activity_without_ties_takes_no_statement_more() -> None:
    agent_id = defined("research").enqueue(Company(name="Acme")).agent_id
    start(agent_id)
    assert row(agent_id).hook_flags == HookFlag.NONE

    with CaptureQueriesContext(connection) as queries:
        complete(agent_id)

    statements = [query["sql"].split()[0] for query in queries]
    assert len([one for one in statements if one not in ("BEGIN", "COMMIT")]) == 1 + WRITES_OF_A_BATCH


def test_crashes_before_a_wait_do_not_count_after_it() -> None:
    attempt = running_parent()
    child = attempt.spawn("research", Company(name="Acme"))
    Activity.objects.filter(pk=attempt.agent_id).update(crashes=2)
    park(attempt, child.agent_id)

    finish(child.agent_id)

    assert (row(attempt.agent_id).crashes, row(attempt.agent_id).discounted_crashes) == (0, 3)
