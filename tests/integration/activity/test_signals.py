"""`activity_changed`: sent once per committed change, after the commit; errors of receivers have no effect."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection, transaction

import django_agentexec
from django_agentexec import activities_changed, activity, activity_changed, activity_ended, signals
from django_agentexec.activity.store import commit_callbacks
from django_agentexec.activity.transitions import Progress
from django_agentexec.models import Activity
from django_agentexec.worker import after_commit
from django_agentexec.worker.committer import Committer
from tests.support.activity_rows import claimed_ids, fail, row, start
from tests.testapp.agents import Text, shout

pytestmark = pytest.mark.django_db(transaction=True)

Received = list[tuple[str, str | None]]


@pytest.fixture
def received() -> Iterator[Received]:
    """Status and message of each signal."""
    changes: Received = []

    def receive(activity: Activity, log: Any, **_: Any) -> None:
        assert not connection.in_atomic_block
        changes.append((activity.status, log and log.message))

    activity_changed.connect(receive)
    yield changes
    activity_changed.disconnect(receive)


def test_every_change_sends_a_single_signal(received: Received) -> None:
    agent_id = shout.enqueue(Text()).agent_id
    start(agent_id)
    activity.update(agent_id, "Half", 50)
    activity.complete(agent_id)

    assert received == [
        ("queued", "Waiting to start."),
        ("running", "Task started."),
        ("running", "Half"),
        ("complete", "Task completed successfully."),
    ]


def test_without_receivers_a_change_is_not_passed_to_the_thread_of_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[object] = []
    monkeypatch.setattr(commit_callbacks, "send_signals", sent.append)

    activity.complete(activity.create("import"))

    assert sent == []


def test_usage_sends_a_signal_without_a_log_line(received: Received) -> None:
    agent_id = activity.create("import")
    activity.add_usage(agent_id, {"requests": 1})

    assert received[-1] == ("queued", None)


def test_no_signal_is_sent_before_the_commit(received: Received) -> None:
    with transaction.atomic():
        agent_id = shout.enqueue(Text()).agent_id
        activity.cancel(agent_id)
        before = list(received)

    assert before == []
    assert [status for status, _ in received] == ["queued", "canceled"]


def test_a_rollback_sends_no_signal(received: Received) -> None:
    with transaction.atomic():
        shout.enqueue(Text())
        transaction.set_rollback(True)

    assert received == []


def test_a_refusal_sends_no_signal(received: Received) -> None:
    agent_id = activity.create("import")
    activity.cancel(agent_id)
    received.clear()

    assert activity.cancel_pending() == 0
    assert received == []


def test_an_error_of_a_receiver_is_logged_and_has_no_other_effect(
    received: Received, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(**_: Any) -> None:
        raise ZeroDivisionError("a receiver's own")

    activity_changed.connect(broken)
    try:
        agent_id = shout.enqueue(Text()).agent_id
    finally:
        activity_changed.disconnect(broken)

    assert row(agent_id).status == "queued"
    assert claimed_ids() == [agent_id]
    assert received == [("queued", "Waiting to start.")]
    assert "a receiver's own" in caplog.text


def test_an_end_sends_a_signal_with_its_metadata() -> None:
    ended: list[dict[str, Any]] = []

    def receive(sender: Any, signal: Any, **arguments: Any) -> None:
        ended.append(arguments)

    activity_ended.connect(receive)
    try:
        done = activity.create("import", metadata={"organization_id": "org-1"})
        activity.update(done, "Half", 50)
        activity.complete(done)
        canceled = shout.enqueue(Text()).agent_id
        activity.cancel(canceled)
        activity.add_usage(canceled, {"requests": 1})  # not an end
        failed = activity.create("import")
        activity.error(failed, "no")
    finally:
        activity_ended.disconnect(receive)

    assert ended == [
        {"agent_id": done, "status": "complete", "metadata": {"organization_id": "org-1"}},
        {"agent_id": canceled, "status": "canceled", "metadata": {}},
        {"agent_id": failed, "status": "error", "metadata": {}},
    ]


def test_a_failed_attempt_that_is_retried_is_no_end() -> None:
    ended: list[str] = []

    def receive(status: str, **_: Any) -> None:
        ended.append(status)

    agent_id = shout.enqueue(Text()).agent_id
    start(agent_id)
    activity_ended.connect(receive)
    try:
        fail(agent_id, retry_delay=1.0)
        before_the_last = list(ended)
        start(agent_id, 2)
        fail(agent_id, 2)
    finally:
        activity_ended.disconnect(receive)

    assert before_the_last == []
    assert ended == ["error"]


def test_the_signals_are_exported() -> None:
    assert django_agentexec.activity_changed is activity_changed
    assert django_agentexec.activity_ended is activity_ended
    assert django_agentexec.activities_changed is activities_changed


class InWorker:
    """A committer as a worker process has one, and an activity that runs."""

    def __init__(self) -> None:
        self.committer = Committer()
        self.committer.start()
        self.agent_id = shout.enqueue(Text()).agent_id
        start(self.agent_id)

    def progress(self, message: str) -> None:
        self.committer.submit(Progress(agent_id=self.agent_id, fence=1, message=message)).result(10)


@pytest.fixture
def worker() -> Iterator[InWorker]:
    worker = InWorker()
    yield worker
    worker.committer.stop(10)


@pytest.mark.parametrize("signal", [activity_changed, activities_changed])
def test_a_slow_receiver_does_not_stop_the_worker(worker: InWorker, signal: Any) -> None:
    running, go_on, threads = threading.Event(), threading.Event(), set[str]()

    def slow(**_: Any) -> None:
        threads.add(threading.current_thread().name)
        running.set()
        go_on.wait(20)

    signal.connect(slow)
    try:
        worker.progress("0")
        assert running.wait(10)
        for number in range(20):
            worker.progress(str(number))
        go_on.set()
        assert worker.committer.stop(10)
    finally:
        go_on.set()
        signal.disconnect(slow)

    assert threads == {"agentexec-signals"}


def test_a_worker_sends_signals_in_the_order_of_the_changes(worker: InWorker, received: Received) -> None:
    for number in range(50):
        worker.progress(str(number))
    worker.committer.stop(10)

    assert [message for _, message in received] == [str(number) for number in range(50)]


@pytest.mark.parametrize("kind", ["function", "method", "async", "object"])
def test_a_slow_receiver_is_named(kind: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "SLOW_RECEIVER", 0.0)

    class Slow:
        def __call__(self, **_: Any) -> None: ...

        def method(self, **_: Any) -> None: ...

    def function(**_: Any) -> None: ...

    async def coroutine(**_: Any) -> None: ...

    slow = Slow()
    receiver = {"function": function, "method": slow.method, "async": coroutine, "object": slow}[kind]
    activity_changed.connect(receiver)
    try:
        shout.enqueue(Text())
    finally:
        activity_changed.disconnect(receiver)

    name = {"function": ".function", "method": "Slow.method", "async": ".coroutine", "object": "Slow"}[kind]
    (warning,) = [record for record in caplog.records if vars(record).get("signal") == "activity_changed"]
    assert f"{name} of activity_changed took" in warning.message
    assert warning.__dict__["receiver"].startswith(__name__)


def test_a_receiver_that_hangs_is_named_while_it_runs(
    worker: InWorker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(after_commit, "STUCK_RECEIVER", 0.0)
    running, go_on = threading.Event(), threading.Event()

    def hanging(**_: Any) -> None:
        running.set()
        go_on.wait(20)

    activity_changed.connect(hanging)
    try:
        worker.progress("0")
        assert running.wait(10)
        worker.progress("1")
        text = caplog.text
    finally:
        go_on.set()
        activity_changed.disconnect(hanging)

    assert "hanging of activity_changed has been running for" in text


def test_changes_that_wait_for_receivers_are_bounded(
    worker: InWorker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(after_commit, "MAX_WAITING_CHANGES", 5)
    running, go_on, received = threading.Event(), threading.Event(), list[str]()

    def slow(activity: Activity, **_: Any) -> None:
        running.set()
        go_on.wait(20)
        received.append(activity.latest_log_message)

    activity_changed.connect(slow)
    try:
        worker.progress("0")
        assert running.wait(10)
        for number in range(1, 20):
            worker.progress(str(number))
        go_on.set()
        worker.committer.stop(10)
    finally:
        go_on.set()
        activity_changed.disconnect(slow)

    assert received == ["0", "1", "2", "3", "4"]
    assert "Signals were not sent (changes: 1)" in caplog.text
    assert ".slow" in caplog.text
