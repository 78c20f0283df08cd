"""Group commit: many writes, few transactions; a write that fails does not affect the others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import OperationalError, connection, connections

from django_agentexec import ActivityNotFound, StaleAttempt, Status, activity_changed
from django_agentexec.activity.store import CommitOutcomeUnknown
from django_agentexec.activity.transitions import AddUsage, Fail, Operation, Progress
from django_agentexec.current import running
from django_agentexec.models import Activity
from django_agentexec.worker import committer as module
from django_agentexec.worker.committer import MAX_REJECTIONS, Committer
from tests.support.activity_rows import messages, row, running_activity
from tests.support.attempts import worker_attempt

pytestmark = pytest.mark.django_db(transaction=True)


class Gate:
    """Stands before `apply`: holds batches back, counts them, and may fail."""

    def __init__(self, apply: Any) -> None:
        self._apply = apply
        self.open = threading.Event()
        self.entered = threading.Event()
        self.sizes: list[int] = []
        self.errors: list[Exception] = []
        self.after_first: Callable[[], None] = lambda: None

    def __call__(self, operations: list[Operation], unknown_outcome: CommitOutcomeUnknown | None = None) -> Any:
        self.entered.set()
        assert self.open.wait(10)
        self.sizes.append(len(operations))
        if self.errors:
            raise self.errors.pop(0)
        try:
            return self._apply(operations, unknown_outcome)
        finally:
            if len(self.sizes) == 1:
                self.after_first()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    gate = Gate(module.apply)
    monkeypatch.setattr(module, "apply", gate)
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.001)
    return gate


class Ending(Committer):
    """A committer that a test can bring to its last moments."""

    def give_up(self) -> None:
        """Act as if the time had passed that the end of the worker leaves for writes."""
        self._giving_up.set()


@pytest.fixture
def committer() -> Iterator[Ending]:
    committer = Ending()
    committer.start()
    yield committer
    committer.stop(10)


@pytest.fixture
def agent_id() -> UUID:
    return running_activity()


def progress(agent_id: UUID, message: str = "x", **fields: Any) -> Progress:
    return Progress(agent_id=agent_id, fence=1, message=message, **fields)


def test_a_write_ends_when_it_is_committed(committer: Committer, agent_id: UUID) -> None:
    written = committer.submit(progress(agent_id, "Reading")).result(10)

    assert written.latest_log_message == "Reading"
    assert row(agent_id).latest_log_message == "Reading"


def test_writes_that_arrive_meanwhile_share_a_transaction(committer: Committer, gate: Gate, agent_id: UUID) -> None:
    first = committer.submit(progress(agent_id, "first"))
    assert gate.entered.wait(10)
    others = [committer.submit(progress(agent_id, str(number))) for number in range(100)]

    gate.open.set()
    for future in [first, *others]:
        future.result(10)

    assert gate.sizes == [1, 100]
    assert messages(agent_id)[2:] == ["first", *map(str, range(100))]


def test_a_write_that_may_wait_shares_the_transaction_of_the_next(
    committer: Committer, gate: Gate, agent_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LINGER", 60.0)
    gate.open.set()

    waiting = committer.submit(progress(agent_id, "may wait", may_wait=True))
    committer.submit(progress(agent_id, "next")).result(10)

    assert waiting.done()
    assert gate.sizes == [2]
    assert messages(agent_id)[-2:] == ["may wait", "next"]


def test_a_write_that_may_wait_does_not_wait_long_nor_at_the_end(
    committer: Committer, gate: Gate, agent_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate.open.set()
    committer.submit(progress(agent_id, "alone", may_wait=True)).result(10)

    monkeypatch.setattr(module, "LINGER", 60.0)
    last = committer.submit(progress(agent_id, "last", may_wait=True))

    assert committer.stop(10)
    assert last.done()


def test_a_batch_has_a_limit(committer: Committer, gate: Gate, agent_id: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BATCH", 10)
    first = committer.submit(progress(agent_id))
    assert gate.entered.wait(10)
    others = [committer.submit(progress(agent_id)) for _ in range(25)]

    gate.open.set()
    for future in [first, *others]:
        future.result(10)

    assert gate.sizes == [1, 10, 10, 5]


def test_a_refusal_is_the_writes_own(committer: Committer, agent_id: UUID) -> None:
    futures = [
        committer.submit(progress(uuid4())),
        committer.submit(Progress(agent_id=agent_id, fence=99, message="of another")),
        committer.submit(progress(agent_id, "mine")),
    ]

    assert isinstance(futures[0].exception(10), ActivityNotFound)
    assert isinstance(futures[1].exception(10), StaleAttempt)
    assert futures[2].result(10).latest_log_message == "mine"


def test_one_write_that_the_database_does_not_take_does_not_take_the_others_down(
    committer: Committer, gate: Gate, agent_id: UUID
) -> None:
    held = committer.submit(progress(agent_id, "first"))
    assert gate.entered.wait(10)
    good = committer.submit(progress(agent_id, "good"))
    bad = committer.submit(progress(agent_id, "bad", percentage=10**30))
    after = committer.submit(progress(agent_id, "after"))

    gate.open.set()

    assert bad.exception(10) is not None
    assert [future.result(10).agent_id for future in (held, good, after)] == [agent_id] * 3
    assert messages(agent_id)[2:] == ["first", "good", "after"]


def test_a_database_that_does_not_answer_is_asked_again(
    committer: Committer, gate: Gate, agent_id: UUID, caplog: pytest.LogCaptureFixture
) -> None:
    gate.errors = [OperationalError("database is locked"), OperationalError("server closed the connection")]
    gate.open.set()

    committer.submit(progress(agent_id, "at last")).result(10)

    assert messages(agent_id)[2:] == ["at last"]
    assert caplog.text.count("The database does not answer") == 2


def test_a_write_that_the_database_refuses_for_good_does_not_stop_the_others(
    committer: Committer, gate: Gate, agent_id: UUID
) -> None:
    gate.errors = [OperationalError("total size of jsonb object elements exceeds the maximum")] * MAX_REJECTIONS
    gate.open.set()

    refused = committer.submit(progress(agent_id, "too large"))

    assert isinstance(refused.exception(10), OperationalError)
    assert committer.submit(progress(agent_id, "small")).result(10).latest_log_message == "small"


def test_a_write_that_was_canceled_while_it_waited_is_left_out(
    committer: Committer, gate: Gate, agent_id: UUID
) -> None:
    held = committer.submit(progress(agent_id, "first"))
    assert gate.entered.wait(10)
    unwanted = committer.submit(progress(agent_id, "unwanted"))
    unwanted.cancel()
    after = committer.submit(progress(agent_id, "after"))

    gate.open.set()
    held.result(10)
    after.result(10)

    with pytest.raises(CancelledError):
        unwanted.result(0)
    assert messages(agent_id)[2:] == ["first", "after"]


def test_a_handler_that_is_canceled_within_a_write_does_not_end_the_recorder(
    committer: Committer, gate: Gate, agent_id: UUID
) -> None:
    attempt = worker_attempt(agent_id, write=committer.submit)

    async def canceled_within_a_write() -> None:
        report = asyncio.ensure_future(attempt.aprogress("the last word"))
        await asyncio.to_thread(gate.entered.wait, 10)
        report.cancel()
        with pytest.raises(asyncio.CancelledError):
            await report

    asyncio.run(canceled_within_a_write())
    gate.open.set()

    assert committer.submit(progress(agent_id, "still alive")).result(10).latest_log_message == "still alive"


def test_what_was_handed_in_is_written_before_the_end(gate: Gate, agent_id: UUID) -> None:
    committer = Committer()
    committer.start()
    futures = [committer.submit(progress(agent_id, str(number))) for number in range(5)]
    gate.open.set()

    ended = committer.stop(10)

    assert ended
    assert [future.result(0).agent_id for future in futures] == [agent_id] * 5


def test_a_write_after_the_end_is_refused_and_waits_for_nobody(agent_id: UUID) -> None:
    committer = Committer()
    committer.start()
    committer.stop(10)

    with pytest.raises(StaleAttempt, match="came too late"):
        committer.submit(progress(agent_id)).result(10)


@pytest.mark.skipif(connection.vendor != "sqlite", reason="others let two transactions write at a time")
def test_a_write_within_the_handlers_own_transaction_does_not_wait_for_itself(
    committer: Committer, agent_id: UUID
) -> None:
    from django.db import transaction

    from django_agentexec import activity

    attempt = worker_attempt(agent_id, write=committer.submit)
    with running(attempt), transaction.atomic():
        Activity.objects.filter(pk=uuid4()).delete()  # holds SQLite's one lock for writing
        activity.update(agent_id, "verb")
        attempt.progress("attempt")

    assert messages(agent_id)[2:] == ["verb", "attempt"]


@pytest.fixture
def lost_commits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """Loses the database's answer to a commit: each entry is one, and says whether the commit arrived."""
    lost: list[bool] = []
    wrapper_class = type(connections["default"])
    commit = wrapper_class._commit

    def commit_and_fall_silent(wrapper: Any) -> None:
        if not lost:
            return commit(wrapper)
        if lost.pop(0):
            commit(wrapper)
        raise OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(wrapper_class, "_commit", commit_and_fall_silent)
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.001)
    yield lost
    assert lost == []


@pytest.mark.parametrize("arrived", [[True], [False], [False, True], [False, False]])
def test_progress_whose_commit_was_not_answered_is_written_once(
    committer: Committer, agent_id: UUID, lost_commits: list[bool], arrived: list[bool]
) -> None:
    lost_commits += arrived

    written = committer.submit(progress(agent_id, "Reading")).result(10)

    assert written.latest_log_message == "Reading"
    assert messages(agent_id).count("Reading") == 1


def test_each_end_whose_commit_was_not_answered_is_heard_as_it_was(
    committer: Committer, agent_id: UUID, lost_commits: list[bool]
) -> None:
    lost_commits += [True]

    failed = committer.submit(Fail(agent_id=agent_id, fence=1, error="x", retry_delay=60)).result(10)

    assert failed.status == Status.QUEUED
    assert row(agent_id).retries == 1


def test_tokens_whose_commit_was_not_answered_count_once(
    committer: Committer, agent_id: UUID, lost_commits: list[bool]
) -> None:
    lost_commits += [True]

    committer.submit(AddUsage(agent_id=agent_id, fence=1, usage={"requests": 2})).result(10)

    assert row(agent_id).usage == {"requests": 2}


@pytest.mark.parametrize("is_ending", [False, True])
def test_the_doubt_about_a_commit_outlives_what_the_database_refuses_next(
    gate: Gate, agent_id: UUID, lost_commits: list[bool], is_ending: bool
) -> None:
    lost_commits += [True]
    committer = Ending()
    writes = [committer.submit(AddUsage(agent_id=agent_id, fence=1, usage={"requests": 1})) for _ in range(3)]

    def refuse() -> None:
        gate.errors += [OperationalError("canceling statement due to lock timeout")] * MAX_REJECTIONS
        if is_ending:
            committer.give_up()

    gate.after_first = refuse
    gate.open.set()
    committer.start()  # now, so that the writes share a transaction

    for write in writes:
        assert write.exception(10) is None or is_ending
    assert row(agent_id).usage == {"requests": 3}
    committer.stop(10)


def test_a_change_whose_commit_was_not_answered_is_announced_once(
    committer: Committer, agent_id: UUID, lost_commits: list[bool]
) -> None:
    lost_commits += [True]
    heard: list[str] = []

    def register_hook(*, activity: Activity, **signal: Any) -> None:
        heard.append(activity.latest_log_message)

    activity_changed.connect(register_hook)
    try:
        committer.submit(progress(agent_id, "Reading")).result(10)
        committer.stop(10)  # its receivers run in a thread of their own
    finally:
        activity_changed.disconnect(register_hook)

    assert heard == ["Reading"]
