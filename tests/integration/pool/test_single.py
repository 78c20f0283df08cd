"""One attempt of one activity, without a pool."""

from __future__ import annotations

import asyncio
import os
import signal
from threading import Thread
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.core.management import call_command
from django.db import connections

from django_agentexec import ActivityNotFound, InvalidTransition, activity, task
from django_agentexec.concurrency import pause
from django_agentexec.models import Status
from django_agentexec.pool.single import run_one
from django_agentexec.queues import get_queue
from django_agentexec.signals import worker_started
from django_agentexec.tasks import registry
from django_agentexec.worker.claimer import Claimer
from tests.support.activity_rows import messages, row
from tests.testapp.agents import Text, shout

pytestmark = pytest.mark.django_db(transaction=True)


def test_an_activity_runs_alone_and_the_others_wait() -> None:
    first, wanted = shout.enqueue(Text(text="first")), shout.enqueue(Text(text="wanted"))

    done = run_one(wanted.agent_id, 10)

    assert done is not None
    assert (done.status, done.result) == (Status.COMPLETE, "WANTED")
    assert row(first.agent_id).status == Status.QUEUED
    assert not get_queue().list_leases("default")


def test_a_failure_leaves_its_retry_to_the_next_worker(request: pytest.FixtureRequest) -> None:
    request.addfinalizer(lambda: registry.unregister("failing"))

    @task("failing", max_retries=1, backoff=lambda *_: 0.0)
    async def failing(agent_id: UUID, context: Text) -> None:
        raise ConnectionError("gone")

    handle = failing.enqueue(Text())

    after_first, after_second = run_one(handle.agent_id, 10), run_one(handle.agent_id, 10)

    assert after_first is not None
    assert after_second is not None
    assert [(each.status, each.attempt) for each in (after_first, after_second)] == [("queued", 1), ("error", 2)]


def test_an_activity_that_the_queue_has_lost_runs() -> None:
    handle = shout.enqueue(Text())
    get_queue().clear()

    done = run_one(handle.agent_id, 60)

    assert done is not None
    assert done.status == Status.COMPLETE, messages(handle.agent_id)


def test_what_cannot_be_claimed_in_time_stays_queued() -> None:
    handle = shout.enqueue(Text(), delay=3600)

    assert run_one(handle.agent_id, 0) is None
    assert row(handle.agent_id).status == Status.QUEUED


def test_a_timeout_of_zero_tries_once(monkeypatch: pytest.MonkeyPatch) -> None:
    run_one(shout.enqueue(Text()).agent_id, 60)  # restores the empty queue
    handle, start = shout.enqueue(Text(text="now")), Claimer.start

    def late(claimer: Claimer) -> None:  # after the timeout
        asyncio.get_running_loop().call_later(0.05, start, claimer)

    monkeypatch.setattr(Claimer, "start", late)

    done = run_one(handle.agent_id, 0)

    assert done is not None
    assert (done.status, done.result) == (Status.COMPLETE, "NOW")


def test_a_pause_after_the_enqueue_holds_it_back() -> None:
    handle = shout.enqueue(Text(), metadata={"org": "7"})
    pause("tenant", "org=7")

    assert run_one(handle.agent_id, 1) is None
    assert row(handle.agent_id).status == Status.QUEUED


def test_what_its_creator_drives_is_not_run() -> None:
    agent_id = activity.create("shout", context={"text": "mine"})

    with pytest.raises(InvalidTransition, match="in no queue"):
        run_one(agent_id, 1)
    assert (row(agent_id).status, row(agent_id).attempt) == (Status.QUEUED, 0)


def test_the_wait_ends_when_the_activity_does() -> None:
    handle = shout.enqueue(Text(), delay=3600)

    def cancel_and_close() -> None:
        activity.cancel(handle.agent_id)
        connections.close_all()

    def cancel(sender: object, **_: object) -> None:
        thread = Thread(target=cancel_and_close)  # this thread runs an event loop
        thread.start()
        thread.join()

    worker_started.connect(cancel)
    try:
        ended = run_one(handle.agent_id)
    finally:
        worker_started.disconnect(cancel)

    assert ended is not None
    assert (ended.status, ended.attempt) == (Status.CANCELED, 0)


def test_the_wait_does_not_hammer_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    shout.enqueue(Text(text="ready"))
    wanted = shout.enqueue(Text(), delay=3600)
    trips, claim = [], get_queue().ack_and_claim

    def counted(*args: Any, **options: Any) -> Any:
        trips.append(args)
        return claim(*args, **options)

    monkeypatch.setattr(get_queue(), "ack_and_claim", counted)

    assert run_one(wanted.agent_id, 1) is None
    assert len(trips) < 10


def test_what_has_ended_or_does_not_exist_is_an_error() -> None:
    handle = shout.enqueue(Text())
    run_one(handle.agent_id, 10)

    with pytest.raises(InvalidTransition, match="complete"):
        run_one(handle.agent_id)
    with pytest.raises(ActivityNotFound):
        run_one(uuid4())


def test_the_command_prints_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    handle = shout.enqueue(Text())

    call_command("agentexec", "run-one", str(handle.agent_id))

    assert capsys.readouterr().out.startswith("complete")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_during_the_wait_ends_the_command(
    capsys: pytest.CaptureFixture[str], number: signal.Signals, code: int
) -> None:
    handle = shout.enqueue(Text(), delay=3600)

    def interrupt(sender: object, **_: object) -> None:
        os.kill(os.getpid(), number)

    worker_started.connect(interrupt)
    try:
        with pytest.raises(SystemExit) as exit:
            call_command("agentexec", "run-one", str(handle.agent_id), "--timeout", "3600")
    finally:
        worker_started.disconnect(interrupt)

    assert exit.value.code == code
    printed = capsys.readouterr()
    assert (printed.out, printed.err.splitlines()[-1]) == (
        "", f"Interrupted before activity {handle.agent_id} could be claimed."
    )  # fmt: skip
    assert row(handle.agent_id).status == Status.QUEUED


def test_the_command_says_that_it_could_not_claim(capsys: pytest.CaptureFixture[str]) -> None:
    handle = shout.enqueue(Text(), delay=3600)

    with pytest.raises(SystemExit) as exit:
        call_command("agentexec", "run-one", str(handle.agent_id), "--timeout", "0")

    assert exit.value.code == 124
    assert "could not be claimed" in capsys.readouterr().err
