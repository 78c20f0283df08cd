"""Waits of handlers that could never end are refused at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from asgiref.sync import sync_to_async

from django_agentexec import Attempt, InvalidOption, Status, TaskFailed, agather, aget_result, gather, get_result, task
from django_agentexec.current import running
from django_agentexec.testing import drain
from tests.support.activity_rows import row, start
from tests.support.research_family import Companies, Company, attempt_of, park, running_parent

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("family")]


def get(agent_id: UUID, context: Company) -> Any:
    return get_result(agent_id, timeout=None)


def gathered(agent_id: UUID, context: Company) -> Any:
    return gather(agent_id, timeout=None)


def gathered_as_a_child(agent_id: UUID, context: Company, attempt: Attempt) -> Any:
    return attempt.gather(agent_id)


async def aget(agent_id: UUID, context: Company) -> Any:
    return await aget_result(agent_id, timeout=None)


async def agathered(agent_id: UUID, context: Company) -> Any:
    return await agather(agent_id, timeout=None)


async def in_a_thread(agent_id: UUID, context: Company) -> Any:
    return await asyncio.to_thread(get_result, agent_id, None)


async def in_djangos_thread(agent_id: UUID, context: Company) -> Any:
    return await sync_to_async(get_result)(agent_id, None)


@pytest.mark.parametrize(
    "handler", [get, gathered, gathered_as_a_child, aget, agathered, in_a_thread, in_djangos_thread]
)
def test_a_handler_that_waits_for_itself_is_told_so(handler: Callable[..., Any]) -> None:
    handle = task("narcissus", max_retries=0)(handler).enqueue(Company(name="Acme"))

    drain()

    with pytest.raises(TaskFailed, match=r"InvalidOption: Activity .* (waits for its own result|was not spawned by)"):
        get_result(handle, timeout=0)


def test_a_child_that_waits_for_its_suspended_parent_is_told_so() -> None:
    parent = running_parent()
    child = parent.spawn("discover", Companies())
    park(parent, child.agent_id)

    with running(attempt_of_started(child.agent_id)), pytest.raises(InvalidOption, match="neither would ever end"):
        get_result(parent.agent_id, timeout=None)


def test_so_is_a_grandchild_that_waits_for_its_suspended_grandparent() -> None:
    parent = running_parent()
    child = parent.spawn("discover", Companies())
    park(parent, child.agent_id)
    between = attempt_of_started(child.agent_id)
    grandchild = between.spawn("research", Company(name="Acme"))
    park(between, grandchild.agent_id)

    with running(attempt_of_started(grandchild.agent_id)), pytest.raises(InvalidOption, match="neither would ever end"):
        get_result(parent.agent_id, timeout=None)


def test_a_child_may_wait_for_a_parent_that_does_not_wait_for_it() -> None:
    parent = running_parent()
    awaited_ids, other = parent.spawn_many("research", [Company(name="Acme"), Company(name="Globex")])
    park(parent, awaited_ids.agent_id)

    with running(attempt_of_started(other.agent_id)), pytest.raises(TimeoutError):
        get_result(parent.agent_id, timeout=0)


def test_a_parent_that_begins_to_wait_during_the_childs_wait_is_noticed() -> None:
    async def waits_for_its_parent(agent_id: UUID, context: Company) -> str:
        parent = (await sync_to_async(row)(agent_id)).parent_id
        return str(await aget_result(parent, timeout=None))  # type: ignore[arg-type]  # it has one

    async def waits_for_its_child(agent_id: UUID, context: Companies, attempt: Attempt) -> str:
        (found,) = await attempt.agather(await attempt.aspawn("child", Company(name="Acme")), return_exceptions=True)
        return str(found)

    task("child", max_retries=0)(waits_for_its_parent)
    handle = task("parent", max_retries=0)(waits_for_its_child).enqueue(Companies())

    drain()

    assert row(handle.agent_id).status == Status.COMPLETE
    assert "neither would ever end" in get_result(handle, timeout=0)


def attempt_of_started(agent_id: UUID) -> Attempt:
    start(agent_id)
    return attempt_of(agent_id)
