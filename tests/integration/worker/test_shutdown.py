"""The last moments of a worker whose handler does not end: its last reports, and what it gives back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest

from django_agentexec import Attempt, StaleAttempt, task
from django_agentexec.models import Activity
from django_agentexec.queues import QueueStats, get_queue
from django_agentexec.signals import worker_stopped
from django_agentexec.tasks import registry
from django_agentexec.worker import shutdown
from django_agentexec.worker.committer import Committer
from django_agentexec.worker.heartbeat import Heartbeat
from django_agentexec.worker.options import WorkerOptions
from django_agentexec.worker.worker import Worker
from tests.testapp.agents import Text

pytestmark = pytest.mark.django_db(transaction=True)


class Held:
    """A handler that ignores every signal until the test lets it end."""

    def __init__(self) -> None:
        self.runs, self.may_end = threading.Event(), threading.Event()

    def __call__(self, agent_id: UUID, context: Text) -> None:
        self.runs.set()
        self.may_end.wait(60)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    """The handler of the task `held`."""
    monkeypatch.setattr(shutdown, "CANCEL_TIMEOUT", 0.1)
    handler = Held()

    @task("held")
    def run(agent_id: UUID, context: Text) -> None:
        handler(agent_id, context)

    yield handler
    handler.may_end.set()


def run_and_end(held: Held) -> None:
    """Run a worker until it has the handler, and end it at once."""
    options = WorkerOptions(("default",), 2, burst=True, name="w")
    worker = Worker(get_queue(), options, beat=lambda info: None, needs_recovery=lambda: None)
    # Not before: a new worker that finds rows and a new server waits for a pool to refill it.
    registry.get("held").enqueue(Text())

    async def work() -> None:
        running = asyncio.create_task(worker.run())
        assert await asyncio.to_thread(held.runs.wait, 60)
        worker.end_now()
        await running
        held.may_end.set()  # or the loop's end would wait for its thread

    asyncio.run(work())


@contextmanager
def heard_by(receive: Callable[..., object]) -> Iterator[None]:
    """Receive the worker's last reports."""
    worker_stopped.connect(receive)
    try:
        yield
    finally:
        worker_stopped.disconnect(receive)


def test_a_handler_that_goes_on_keeps_its_claim_until_the_last_words_are_said(held: Held) -> None:
    seen: list[QueueStats] = []

    def look(**signal: Any) -> None:
        seen.append(get_queue().stats("default"))

    with heard_by(look):
        run_and_end(held)

    (during,), after = seen, get_queue().stats("default")
    assert (during.leased, during.ready) == (1, 0)
    assert (after.leased, after.ready) == (0, 1)


def test_nothing_is_left_to_do_once_its_claim_is_given_back(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each thing could take its time, and the next one who holds the key would run beside it."""
    deregister_worker, leased = Heartbeat.deregister_worker, []

    def look(lease: Heartbeat) -> None:
        deregister_worker(lease)
        leased.append(get_queue().stats("default").leased)

    monkeypatch.setattr(Heartbeat, "deregister_worker", look)
    run_and_end(held)

    assert leased == [1]
    assert get_queue().workers() == []


def test_who_was_left_in_a_write_hears_that_its_lease_is_lost(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another activity takes its key then, and neither database nor queue may answer."""
    overdue: list[UUID] = []
    heard, is_ending, unwritten = threading.Event(), threading.Event(), Future[Activity]()

    def write_on(agent_id: UUID, context: Text, attempt: Attempt) -> None:
        overdue.append(agent_id)
        held.runs.set()
        try:
            attempt.progress("not written")
        except StaleAttempt:
            heard.set()
            raise

    registry.unregister("held")
    task("held", lock_key="one")(write_on)
    monkeypatch.setattr(Committer, "submit", lambda committer, operation: unwritten)
    monkeypatch.setattr(Heartbeat, "overdue", lambda lease: overdue if is_ending.is_set() else [])
    in_time: list[bool] = []

    def wait_for_it(**signal: Any) -> None:
        is_ending.set()
        in_time.append(heard.wait(shutdown.FLUSH_TIMEOUT - 1))
        if not unwritten.done():  # or a handler without an answer would keep the loop from its end
            unwritten.set_exception(RuntimeError("not written"))

    with heard_by(wait_for_it):
        run_and_end(held)

    assert in_time == [True]


def test_who_hears_the_last_words_cannot_hold_up_the_end(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutdown, "FLUSH_TIMEOUT", 0.3)
    timed_out: list[bool] = []

    def ponder(**signal: Any) -> None:
        timed_out.append(not held.may_end.wait(20))

    with heard_by(ponder):
        run_and_end(held)

    assert True not in timed_out
    assert get_queue().stats("default").ready == 1
