"""Machines whose clocks are wrong: what one of them wrote must neither be overlooked nor wait for its time to come."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from unittest import mock

import pytest
from django.utils import timezone

from django_agentexec import Status, activity
from django_agentexec.models import Activity
from django_agentexec.pool.reconciler import SETTLING, reconcile
from django_agentexec.queues import get_queue
from tests.support.activity_rows import claimed_ids, fail, start
from tests.testapp.agents import Text, shout

pytestmark = pytest.mark.django_db(transaction=True)

HOUR = timedelta(hours=1)


@contextmanager
def clock(shift: timedelta) -> Iterator[None]:
    """Let this process's clock be wrong."""
    with mock.patch.object(timezone, "now", lambda now=timezone.now: now() + shift):
        yield


def lose_everything() -> None:
    get_queue().clear()


@pytest.mark.parametrize("settling", [SETTLING, timedelta()])
def test_a_reconciler_whose_clock_is_behind_finds_what_is_missing(settling: timedelta) -> None:
    handle = shout.enqueue(Text())
    lose_everything()

    with clock(-HOUR):
        assert reconcile(settling=settling) == 1

    assert claimed_ids() == [handle.agent_id]


@pytest.mark.parametrize("settling", [SETTLING, timedelta()])
def test_what_a_machine_wrote_whose_clock_is_ahead_is_found(settling: timedelta) -> None:
    with clock(HOUR):
        handle = shout.enqueue(Text())
    lose_everything()

    assert reconcile(settling=settling) == 1
    assert claimed_ids() == [handle.agent_id]


def test_what_was_written_a_moment_ago_is_left_to_who_wrote_it() -> None:
    shout.enqueue(Text())
    lose_everything()

    assert reconcile() == 0


def test_a_retry_that_a_machine_noted_whose_clock_is_ahead_waits_for_its_delay_only() -> None:
    handle = shout.enqueue(Text())
    start(handle.agent_id)
    with clock(HOUR):
        fail(handle.agent_id, error="x", retry_delay=0.01)
    lose_everything()

    reconcile()

    due = get_queue().ack_and_claim("default", "w").next_due
    assert due is None or due <= 0.01


def test_a_delay_that_has_not_passed_is_still_waited_for() -> None:
    shout.enqueue(Text(), delay=60)
    lose_everything()

    reconcile(settling=timedelta())

    due = get_queue().ack_and_claim("default", "w").next_due
    assert due is not None
    assert 50 < due <= 60


def test_a_row_whose_fence_is_ahead_of_the_queues_clock_runs_again() -> None:
    """The queue's server was a day ahead when it gave out the fence; its clock was set right, and its data is lost."""
    handle = shout.enqueue(Text())
    a_day_ahead = int((timezone.now() + timedelta(days=1)).timestamp() * 1_000_000)
    Activity.objects.filter(pk=handle.agent_id).update(fence=a_day_ahead)
    lose_everything()
    assert reconcile(settling=timedelta()) == 1

    (claimed,) = get_queue().ack_and_claim("default", "w1", limit=1).claimed

    assert claimed.fence > a_day_ahead
    assert start(handle.agent_id, claimed.fence).status == Status.RUNNING


def test_a_retry_of_a_row_whose_fence_is_ahead_runs() -> None:
    handle = shout.enqueue(Text())
    a_day_ahead = int((timezone.now() + timedelta(days=1)).timestamp() * 1_000_000)
    Activity.objects.filter(pk=handle.agent_id).update(fence=a_day_ahead, status=Status.ERROR)
    lose_everything()
    activity.retry(handle.agent_id)

    (claimed,) = get_queue().ack_and_claim("default", "w1", limit=1).claimed

    assert claimed.fence > a_day_ahead
