"""The order within a key while the queue is unavailable: what could not be pushed goes before what comes later."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock

import pytest
from django.db import connections, transaction

from django_agentexec import QueueUnavailable
from django_agentexec.dispatch.push import push
from django_agentexec.models import Activity
from django_agentexec.queues import Ack, Outcome, get_queue
from tests.support.activity_rows import claimed_ids
from tests.testapp.agents import Keyed, keyed

pytestmark = pytest.mark.django_db(transaction=True)


@contextmanager
def outage() -> Iterator[mock.Mock]:
    """Let the queue take nothing."""
    with mock.patch.object(get_queue(), "enqueue", side_effect=QueueUnavailable("It is down.")) as tried:
        yield tried


def enqueue(number: int, **options: Any) -> Any:
    return keyed.enqueue(Keyed(key="a", number=number), **options).agent_id


def enqueue_and_close(number: int) -> None:
    """Enqueue in a thread, whose database connection nobody else would close."""
    try:
        enqueue(number)
    finally:
        connections.close_all()


def claimed_in_turn(number: int) -> list[Any]:
    """Return the ids in the order in which they can be claimed, each after the end of its predecessor."""
    found, acks = [], []
    for _ in range(number):
        claimed = get_queue().ack_and_claim("default", "w", acks, limit=10).claimed
        found += [claim.agent_id for claim in claimed]
        acks = [Ack(claim, Outcome.DONE) for claim in claimed]
    return found


def test_unsent_messages_are_sent_before_later_messages() -> None:
    with outage():
        first, second = enqueue(1), enqueue(2)
    third = enqueue(3)

    assert claimed_in_turn(3) == [first, second, third]


def test_it_is_pushed_once() -> None:
    with outage():
        first = enqueue(1)
    second = enqueue(2)
    with mock.patch.object(get_queue(), "enqueue", wraps=get_queue().enqueue) as pushed:
        third = enqueue(3)

    assert [message.agent_id for message in pushed.call_args.args[1]] == [third]
    assert claimed_in_turn(3) == [first, second, third]


def test_each_queue_keeps_its_own() -> None:
    with outage(), transaction.atomic():
        first = [enqueue(1), enqueue(1, queue="urgent")]
        retry = partial(push, list(Activity.objects.filter(pk__in=first)))
        with pytest.raises(QueueUnavailable):
            retry()
    enqueue(2)
    enqueue(2, queue="urgent")

    assert [claimed_ids(), claimed_ids(queue="urgent")] == [[first[0]], [first[1]]]


def test_a_wish_to_run_once_more_is_not_made_later() -> None:
    agent_id = enqueue(1)
    get_queue().cancel("default", [agent_id])
    with outage(), pytest.raises(QueueUnavailable):
        push(Activity.objects.filter(pk=agent_id), requeue_running=True)
    push(Activity.objects.filter(pk=agent_id))  # as the reconciler does
    (claimed,) = get_queue().ack_and_claim("default", "w", limit=1).claimed

    enqueue(2)

    # The running handler was not notified: its retry waits for its delay.
    get_queue().ack_and_claim("default", "w", [Ack(claimed, Outcome.RETRY, 60)])
    assert agent_id not in claimed_ids()


def test_an_unsent_message_keeps_only_the_rest_of_its_delay() -> None:
    with outage():
        enqueue(1, delay=60)
    enqueue(2)

    claimed_ids()
    due = get_queue().ack_and_claim("default", "w").next_due
    assert due is not None
    assert due <= 60


def test_while_one_thread_waits_for_the_queue_the_others_do_not_overtake_it() -> None:
    with outage():
        first = enqueue(1)
    arrived, go_on = threading.Event(), threading.Event()
    real = get_queue().enqueue

    def slow(*arguments: Any) -> int:
        arrived.set()
        assert go_on.wait(10)
        return real(*arguments)

    with mock.patch.object(get_queue(), "enqueue", side_effect=slow):
        pushes = [threading.Thread(target=enqueue_and_close, args=[number]) for number in (2, 3)]
        pushes[0].start()
        assert arrived.wait(10)
        pushes[1].start()
        go_on.set()
        for push in pushes:
            push.join(10)

    assert claimed_in_turn(3)[0] == first


def test_no_more_is_kept_than_a_process_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_agentexec.dispatch.push.MAX_UNSENT", 1)
    with outage():
        first, _ = enqueue(1), enqueue(2)
    third = enqueue(3)

    assert claimed_in_turn(3) == [first, third]
