"""Activities that run although their row has ended, because the queue was not notified or lost data, are stopped."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.test import override_settings
from django.utils import timezone

from django_agentexec import activity
from django_agentexec.activity.store import apply_one
from django_agentexec.activity.transitions import AddUsage
from django_agentexec.models import Activity
from django_agentexec.pool import reconciler
from django_agentexec.pool.reconciler import stop_ended
from django_agentexec.queues import Ack, Claim, Outcome, get_queue
from tests.support.activity_rows import claim, complete, start
from tests.testapp.agents import Keyed, Text, keyed, shout

pytestmark = pytest.mark.django_db(transaction=True)

QUEUE = "default"
UNREACHABLE = {"agentexec": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": "redis://127.0.0.1:1/0"}}


def run_one() -> Claim:
    """Let a worker begin an activity."""
    keyed.enqueue(Keyed(key="a"))
    (claimed,) = claim()
    start(claimed.agent_id, claimed.fence)
    return claimed


def cancel_in_vain(agent_id: UUID) -> None:
    """Cancel while Redis is unavailable."""
    with override_settings(CACHES=UNREACHABLE):
        activity.cancel(agent_id)


def let_time_pass() -> None:
    """Let what is written count as settled, and be out of sight of everything that looks a few minutes back."""
    long_ago = timezone.now() - timedelta(hours=1)
    Activity.objects.update(updated_at=long_ago)
    Activity.objects.filter(finished_at__isnull=False).update(finished_at=long_ago)


def is_to_stop(claimed: Claim) -> bool:
    """Return whether the reply to the worker's next beat contains it."""
    beat = get_queue().heartbeat(QUEUE, "w", [claimed])
    assert beat.lost == []
    return beat.canceled == [claimed.agent_id]


def scripts_run() -> int:
    stats: Any = get_queue().client.info("commandstats")  # type: ignore[attr-defined]
    return int(stats.get("cmdstat_evalsha", {"calls": 0})["calls"])


def test_a_cancel_during_an_outage_of_redis_is_passed_on_later(caplog: pytest.LogCaptureFixture) -> None:
    claimed = run_one()
    cancel_in_vain(claimed.agent_id)
    let_time_pass()
    assert "the reconciler of a pool pushes it" in caplog.text
    assert not is_to_stop(claimed)

    assert stop_ended(QUEUE) == 1

    assert is_to_stop(claimed)


def test_an_end_from_outside_during_an_outage_of_redis_is_passed_on_later() -> None:
    claimed = run_one()
    with override_settings(CACHES=UNREACHABLE):
        activity.complete(claimed.agent_id, "Done by hand.")
    let_time_pass()

    assert stop_ended(QUEUE) == 1

    assert is_to_stop(claimed)


@pytest.mark.parametrize("first", ["the cancel", "the loss"])
def test_a_cancel_around_a_loss_of_data_is_passed_on(first: str) -> None:
    claimed = run_one()
    if first == "the cancel":
        activity.cancel(claimed.agent_id)
        get_queue().client.flushall()  # type: ignore[attr-defined]
    else:
        get_queue().client.flushall()  # type: ignore[attr-defined]
        activity.cancel(claimed.agent_id)
    assert not is_to_stop(claimed)  # its beat takes the claim back
    let_time_pass()

    stop_ended(QUEUE)

    assert is_to_stop(claimed)


def test_its_key_is_free_once_it_has_given_in() -> None:
    claimed = run_one()
    cancel_in_vain(claimed.agent_id)
    keyed.enqueue(Keyed(key="a"))
    let_time_pass()
    stop_ended(QUEUE)

    ended = [Ack(claimed, Outcome.DONE)]
    (after,) = get_queue().ack_and_claim(QUEUE, "w", ended, limit=5).claimed
    assert after.agent_id != claimed.agent_id


def test_tokens_that_are_counted_after_the_cancel_do_not_hide_it() -> None:
    claimed = run_one()
    cancel_in_vain(claimed.agent_id)
    let_time_pass()
    apply_one(AddUsage(agent_id=claimed.agent_id, fence=claimed.fence, usage={"total_tokens": 1}))

    assert stop_ended(QUEUE) == 1


def test_running_activities_continue() -> None:
    claimed = run_one()
    let_time_pass()

    assert stop_ended(QUEUE, settling=timedelta()) == 0

    assert not is_to_stop(claimed)


def test_an_activity_that_has_just_ended_is_left_to_its_acknowledgment() -> None:
    claimed = run_one()
    complete(claimed.agent_id, claimed.fence)

    assert stop_ended(QUEUE) == 0

    assert not is_to_stop(claimed)


def test_an_activity_retried_and_claimed_while_its_end_is_examined_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    old = run_one()
    cancel_in_vain(old.agent_id)
    let_time_pass()
    queue, again = get_queue(), list[Claim]()

    def retried_meanwhile(name: str, claims: dict[UUID, int]) -> int:
        activity.retry(old.agent_id)
        again.extend(queue.ack_and_claim(QUEUE, "w", [Ack(old, Outcome.DONE)], limit=1).claimed)
        return type(queue).request_stop(queue, name, claims)

    monkeypatch.setattr(queue, "request_stop", retried_meanwhile)

    assert stop_ended(QUEUE) == 0

    (new,) = again
    assert new.agent_id == old.agent_id
    assert not is_to_stop(new)


def test_an_idle_queue_costs_a_round_trip_and_no_query(django_assert_num_queries: Any) -> None:
    stop_ended(QUEUE)  # lets the server know the scripts
    before = scripts_run()

    with django_assert_num_queries(0):
        stop_ended(QUEUE)

    assert scripts_run() - before == 1


@pytest.mark.parametrize(("running", "queries"), [(1, 1), (3, 1), (4, 2)])
def test_running_activities_cost_one_query_per_batch(
    running: int, queries: int, monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: Any
) -> None:
    monkeypatch.setattr(reconciler, "MAX_BATCH", 3)
    shout.enqueue_many([Text()] * (running + 1))
    claimed = claim(limit=running)
    activity.cancel(claimed[0].agent_id)
    let_time_pass()
    stop_ended(QUEUE)
    before = scripts_run()

    with django_assert_num_queries(queries):
        stop_ended(QUEUE)

    assert scripts_run() - before == 2
