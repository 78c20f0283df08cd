"""The options of fairness: their checks, what the row stores, and what reaches the queue."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

from django_agentexec import InvalidContext, Task, TaskDefinitionError, activity
from django_agentexec.dispatch.push import partition_of
from django_agentexec.models import Activity
from django_agentexec.queues import Ack, Limit, Outcome, get_queue
from django_agentexec.queues.limits import parse_limits

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queue_in_memory")]


class Job(BaseModel):
    name: str = "a"


async def handler(agent_id: UUID, context: Job) -> None:
    """Do nothing."""


def make(**options: Any) -> Task[Any, Any, Any, Any]:
    return Task("fair_task", handler, **options)


def stored(task: Task[Any, Any, Any, Any], context: Job | None = None, **metadata: object) -> Activity:
    run = task.enqueue(context or Job(), metadata=metadata)
    return Activity.objects.get(pk=run.agent_id)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fair_key": ""}, "fair_key='' must be a template"),
        ({"concurrency_key": " ", "max_concurrency": 1}, "concurrency_key=' ' must be a template"),
        ({"lock_key": ""}, "lock_key='' must be a template"),
        ({"fair_key": 5}, "fair_key=5 must be a template"),
        ({"rate_limit": ""}, "rate_limit"),
        ({"fair_key": "{missing}"}, "fair_key '{missing}' uses 'missing'"),
        ({"fair_key": "{name}", "lock_key": "{name}"}, "Lock keys take turns anyway"),
        ({"concurrency": 0}, "concurrency=0 must be a whole number"),
        ({"concurrency": True}, "concurrency=True must be"),
        ({"max_concurrency": 5}, "needs a concurrency_key"),
        ({"rate_limit": "10/minute"}, "'10/minute' is not a rate"),
        ({"rate_limit": "0/m"}, "'0/m' is not a rate"),
        ({"rate_limit": 10}, "10 is not a rate"),
        ({"concurrency_key": "{metadata}"}, "name a key"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskDefinitionError, match=message.replace("{", r"\{").replace("(", r"\(")):
        make(**options)


def test_a_task_without_options_stores_nothing() -> None:
    row = stored(make())

    assert row.fairness is None
    assert partition_of(row) == f"i:{row.agent_id}"


def test_fair_key_and_limits_are_evaluated() -> None:
    task = make(
        fair_key="org {metadata.org}",
        concurrency=3,
        concurrency_key="org:{metadata.org}",
        max_concurrency=5,
        rate_limit="10/m",
    )

    row = stored(task, org="7=8\x1f9")

    assert row.fairness is not None
    assert partition_of(row) == "f:org%207%3D8%1F9"
    assert parse_limits(row.fairness) == (Limit("task:fair_task", 3), Limit("key:org:7=8\x1f9", 5, 10, 60.0))


def test_a_rate_without_a_key_counts_the_task() -> None:
    row = stored(make(rate_limit="2/h"))

    assert parse_limits(row.fairness or "") == (Limit("task:fair_task", None, 2, 3600.0),)


def test_metadata_without_the_key_is_refused() -> None:
    with pytest.raises(InvalidContext, match=r"the fair key '\{metadata.org\}' cannot be evaluated"):
        make(fair_key="{metadata.org}").enqueue(Job())


def test_tenants_take_turns_through_the_whole_path() -> None:
    task = make(fair_key="{metadata.org}", concurrency=2)
    busy = task.enqueue_many([Job()] * 5, metadata={"org": "a"})
    quiet = task.enqueue(Job(), metadata={"org": "b"})

    claims = get_queue().ack_and_claim("default", "w", limit=5).claimed

    assert [claim.agent_id for claim in claims] == [busy[0].agent_id, quiet.agent_id]
    assert claims[0].limit_keys == ("task:fair_task",)
    claims = get_queue().ack_and_claim("default", "w", [Ack(claims[0], Outcome.DONE)], limit=5).claimed
    assert [claim.agent_id for claim in claims] == [busy[1].agent_id]


def test_a_retry_keeps_its_fair_key_and_limits() -> None:
    task = make(fair_key="{metadata.org}", concurrency=2)
    run = task.enqueue(Job(), metadata={"org": "a"})
    activity.cancel(run.agent_id)

    activity.retry(run.agent_id)

    (claim,) = get_queue().ack_and_claim("default", "w", limit=5).claimed
    assert claim.limit_keys == ("task:fair_task",)
