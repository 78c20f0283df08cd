"""A row that another transaction has locked concerns nobody but its own activity, on PostgreSQL."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection, transaction
from django.test import override_settings
from django.utils import timezone

from django_agentexec import ActivityLocked, Status, activity
from django_agentexec.activity.completion_hooks import repair_missed
from django_agentexec.activity.transitions import Complete, Progress
from django_agentexec.conf import user_settings
from django_agentexec.models import Activity
from django_agentexec.worker import committer as committer_module
from django_agentexec.worker import locked_writes as locked_module
from django_agentexec.worker.committer import Committer
from tests.support.activity_rows import fail, messages, row, running_activity, start
from tests.support.foreign_locks import locked_rows, locked_table
from tests.support.research_family import Company, park, running_parent

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite locks the whole file"),
]


def short_wait() -> override_settings:
    return override_settings(AGENTEXEC={**user_settings(), "LOCK_TIMEOUT": 0.2})


@pytest.fixture
def committer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Committer]:
    monkeypatch.setattr(committer_module, "FIRST_PAUSE", 0.001)
    committer = Committer()
    committer.start()
    yield committer
    committer.stop(10)


def progress(agent_id: UUID, message: str) -> Progress:
    return Progress(agent_id=agent_id, fence=1, message=message)


def test_others_are_committed_while_a_row_is_locked(committer: Committer) -> None:
    blocked, free = running_activity(), running_activity()

    with locked_rows(blocked):
        waiting = committer.submit(Complete(agent_id=blocked, fence=1, result="kept"))
        for number in range(20):
            committer.submit(progress(free, str(number))).result(10)
        committer.submit(Complete(agent_id=free, fence=1)).result(10)
        is_done_meanwhile = waiting.done()

    assert not is_done_meanwhile
    assert waiting.result(10).status == Status.COMPLETE
    assert row(blocked).result == "kept"


def test_a_locked_row_does_not_block_others_of_the_same_batch(committer: Committer) -> None:
    blocked, free = running_activity(), running_activity()

    with locked_rows(blocked):
        writes = [committer.submit(progress(agent_id, "x")) for agent_id in [blocked, free] * 50]
        for write in writes[1::2]:
            write.result(10)

    for write in writes[::2]:
        write.result(10)
    assert messages(blocked).count("x") == messages(free).count("x") == 50


def test_the_writes_of_a_locked_activity_keep_their_order(committer: Committer) -> None:
    blocked, free = running_activity(), running_activity()

    with locked_rows(blocked):
        writes = []
        for number in range(10):
            writes.append(committer.submit(progress(blocked, str(number))))
            committer.submit(progress(free, "x")).result(10)
        writes.append(committer.submit(Complete(agent_id=blocked, fence=1)))

    for write in writes:
        write.result(10)
    assert messages(blocked)[2:-1] == [str(number) for number in range(10)]
    assert row(blocked).status == Status.COMPLETE


def test_a_long_lock_is_logged_with_its_activity_and_so_is_its_end(
    committer: Committer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locked_module, "WARN_AFTER", 0.0)
    caplog.set_level(logging.INFO, "django_agentexec")
    blocked = running_activity()

    with locked_rows(blocked):
        written = committer.submit(progress(blocked, "x"))
        committer.submit(progress(running_activity(), "y")).result(10)
    written.result(10)
    committer.stop(10)

    (warning,) = [record for record in caplog.records if "has been locked by another transaction" in record.message]
    assert warning.levelno == logging.WARNING
    assert f"{blocked} (shout)" in warning.message
    assert warning.__dict__["agent_id"] == str(blocked)
    assert "is no longer locked" in caplog.text


def test_activities_locked_at_shutdown_are_released(monkeypatch: pytest.MonkeyPatch) -> None:
    committer = Committer()
    committer.start()
    blocked = running_activity()

    with locked_rows(blocked):
        write = committer.submit(progress(blocked, "x"))
        committer.submit(progress(running_activity(), "y")).result(10)
        committer.stop(0.1)
        error = write.exception(10)

    assert isinstance(error, ActivityLocked)


def test_a_locked_table_is_waited_for_and_loses_nothing(
    committer: Committer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_agentexec.activity.store.TABLE_LOCK_TIMEOUT", 0.05)
    ids = [running_activity() for _ in range(3)]
    logged = threading.Event()

    def note(record: logging.LogRecord) -> bool:
        if "holds a lock" in record.getMessage():
            logged.set()
        return True

    caplog.handler.addFilter(note)
    with locked_table():
        writes = [committer.submit(Complete(agent_id=agent_id, fence=1)) for agent_id in ids]
        assert logged.wait(10)

    for write in writes:
        assert write.result(10).status == Status.COMPLETE


@pytest.mark.parametrize(
    "command",
    [
        lambda agent_id: activity.cancel(agent_id),
        lambda agent_id: activity.update(agent_id, "x"),
        lambda agent_id: activity.complete(agent_id),
        lambda agent_id: activity.error(agent_id, "x"),
        lambda agent_id: activity.retry(agent_id),
        lambda agent_id: activity.retry(agent_id, from_scratch=True),
        lambda agent_id: activity.add_usage(agent_id, {"requests": 1}),
    ],
    ids=["cancel", "update", "complete", "error", "retry", "retry from scratch", "add_usage"],
)
def test_a_command_waits_for_a_limited_time_and_names_the_activity(command: Any) -> None:
    blocked = running_activity()

    with short_wait(), locked_rows(blocked), pytest.raises(ActivityLocked, match=str(blocked)):
        command(blocked)

    assert row(blocked).status == Status.RUNNING


def test_drivers_that_send_one_statement_at_a_time_have_the_same_limits(
    committer: Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_agentexec.bulk_sql.postgres._accepts_several_statements", lambda connection: False)
    blocked, free = running_activity(), running_activity()

    with short_wait(), locked_rows(blocked):
        waiting = committer.submit(progress(blocked, "x"))
        committer.submit(progress(free, "x")).result(10)
        with pytest.raises(ActivityLocked):
            activity.cancel(blocked)
        activity.cancel(free)

    assert waiting.result(10).latest_log_message == "x"
    with connection.cursor() as cursor:
        cursor.execute("SHOW lock_timeout")
        assert cursor.fetchone() == ("0",)


def test_a_command_that_waited_succeeds_when_the_lock_ends() -> None:
    blocked = running_activity()
    begun = threading.Event()

    with locked_rows(blocked):

        def cancel() -> None:
            begun.set()
            activity.cancel(blocked)
            connection.close()

        thread = threading.Thread(target=cancel)
        thread.start()
        assert begun.wait(10)
    thread.join(10)

    assert row(blocked).status == Status.CANCELED


def test_a_command_leaves_the_limits_of_the_callers_transaction_as_they_were() -> None:
    def limit() -> str:
        with connection.cursor() as cursor:
            cursor.execute("SHOW lock_timeout")
            return str(cursor.fetchone()[0])

    blocked, free = running_activity(), running_activity()
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = '7s'")
        activity.cancel(free)
        after_success = limit()
        with short_wait(), locked_rows(blocked), pytest.raises(ActivityLocked):
            activity.cancel(blocked)
        after_failure = limit()
        with short_wait(), locked_rows(blocked):
            activity.cancel_many(Activity.objects.all())
        after_many = limit()

    assert after_success == after_failure == after_many == "7s"
    assert limit() == "0"


def test_a_bulk_cancel_skips_a_locked_activity() -> None:
    blocked, *others = [running_activity() for _ in range(3)]

    with short_wait(), locked_rows(blocked):
        outcome = activity.cancel_many(Activity.objects.all())

    assert set(outcome.done) == set(others)
    assert outcome.refused == {"locked by another transaction": 1}


def test_pruning_leaves_a_locked_row_to_the_next_time() -> None:
    blocked, free = [activity.create("import", agent_id=uuid4()) for _ in range(2)]
    for agent_id in (blocked, free):
        activity.complete(agent_id)
    Activity.objects.update(finished_at=timezone.now() - timedelta(days=9))

    with locked_rows(blocked):
        assert sum(activity.prune(timedelta(days=1))) == 1

    assert list(Activity.objects.values_list("agent_id", flat=True)) == [blocked]
    assert sum(activity.prune(timedelta(days=1))) == 1


@pytest.mark.usefixtures("family")
def test_a_locked_parent_stops_neither_the_recorder_nor_the_reconciler(
    committer: Committer, caplog: pytest.LogCaptureFixture
) -> None:
    attempt = running_parent()
    child = attempt.spawn("research", Company(name="Acme")).agent_id
    park(attempt, child)
    start(child)

    with short_wait(), locked_rows(attempt.agent_id):
        committer.submit(Complete(agent_id=child, fence=1)).result(10)
        committer.submit(progress(running_activity(), "meanwhile")).result(10)
        committer.stop(10)
        repair_missed()
    assert str(attempt.agent_id) in caplog.text

    repair_missed()
    assert row(attempt.agent_id).status == Status.QUEUED


@pytest.mark.usefixtures("family")
def test_a_failed_parents_other_children_are_canceled_though_one_is_locked() -> None:
    attempt = running_parent()
    blocked, *others = [attempt.spawn("research", Company(name=name)).agent_id for name in "abc"]

    with short_wait(), locked_rows(blocked):
        fail(attempt.agent_id, attempt.fence)

    assert [row(child).status for child in others] == [Status.CANCELED] * 2
    assert row(blocked).status == Status.QUEUED
    repair_missed()
    assert row(blocked).status == Status.CANCELED
