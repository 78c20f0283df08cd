"""What the health check finds out: rows can be written, servers answer in time, waiting work is served."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import DatabaseError, connection, connections, transaction
from django.db.backends.signals import connection_created
from django.test import override_settings

from django_agentexec import activities_changed, monitoring
from django_agentexec.models import Activity, ActivityLog
from django_agentexec.monitoring import HealthCheckSchema, record_reconciliation, storage
from django_agentexec.pool import reconciler
from django_agentexec.pool.reconciler import Reconciler
from django_agentexec.queues import WorkerInfo, get_queue
from django_agentexec.queues.redis import RedisQueue
from tests.support.pool_process import until
from tests.testapp.agents import Text, shout

pytestmark = pytest.mark.django_db(transaction=True)

LONGEST = 60.0  # seconds that a test waits for another thread


def announce(name: str = "w-1", *, queues: tuple[str, ...] = ("default",)) -> None:
    """Make a live worker known."""
    now = time.time()
    get_queue().register_worker(
        WorkerInfo(
            id=name, host="h", pid=7, queues=list(queues), concurrency=10, quarantine=False, started=now, last_beat=now
        )
    )


def write_entry(name: str, entry: object) -> None:
    """Write a worker's entry as another release may do."""
    queue = get_queue()
    assert isinstance(queue, RedisQueue)
    queue.client.hset("agentexec:workers", name, entry if isinstance(entry, str) else json.dumps(entry))


def entry_of(name: str, **fields: object) -> dict[str, object]:
    now = time.time()
    info = WorkerInfo(
        id=name, host="h", pid=7, queues=["default"], concurrency=10, quarantine=False, started=now, last_beat=now
    )
    return {**info.as_dict(), **fields}


def failures() -> dict[str, str]:
    """Return the details of the checks that failed, by name."""
    return {check.name: check.detail for check in monitoring.health().checks if not check.ok}


def check_of(name: str) -> HealthCheckSchema:
    return next(check for check in monitoring.health().checks if check.name == name)


@contextmanager
def in_new_connections(statement: str) -> Iterator[None]:
    """Have each new connection to the database execute `statement`."""

    def execute(connection: Any, **_: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute(statement)

    connection_created.connect(execute)
    try:
        yield
    finally:
        connection_created.disconnect(execute)


@contextmanager
def in_another_connection(do: Callable[[], None]) -> Iterator[None]:
    """Have another connection's transaction do something, and stay open inside the block."""
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        try:
            with transaction.atomic():
                do()
                entered.set()
                assert leave.wait(LONGEST)
        finally:
            connections.close_all()

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert entered.wait(LONGEST)
        yield
    finally:
        leave.set()
        thread.join(LONGEST)


# The database


def test_health_writes_and_leaves_nothing() -> None:
    announce()
    heard: list[object] = []
    activities_changed.connect(lambda **event: heard.append(event), weak=False, dispatch_uid="test")

    try:
        check = check_of("database")
    finally:
        activities_changed.disconnect(dispatch_uid="test")

    assert (check.ok, check.detail) == (True, "readable and writable")
    assert (Activity.objects.count(), ActivityLog.objects.count(), heard) == (0, 0, [])


def test_a_read_only_database_is_unhealthy() -> None:
    announce()
    is_sqlite = connection.vendor == "sqlite"

    with in_new_connections("PRAGMA query_only = 1" if is_sqlite else "SET default_transaction_read_only = on"):
        found = failures()

    assert list(found) == ["database"]
    assert "read" in found["database"]


def test_a_full_database_is_unhealthy() -> None:
    if connection.vendor != "sqlite":
        pytest.skip("a server's disk cannot be filled here")
    announce()
    Activity.objects.bulk_create([Activity(agent_type="import", context={"text": "x" * 5_000}) for _ in range(50)])
    Activity.objects.all()._raw_delete("default")  # type: ignore[attr-defined]
    with connection.cursor() as cursor:
        cursor.execute("VACUUM")  # no page is free

    with in_new_connections("PRAGMA max_page_count = 1"):  # SQLite takes the present number of pages
        assert "full" in failures().get("database", "")


def test_a_disk_without_room_for_more_is_unhealthy(monkeypatch: pytest.MonkeyPatch) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("a server's disk is not this machine's")
    announce()
    usage = namedtuple("usage", "total used free")(10**9, 10**9 - 4096, 4096)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)

    assert "is full" in failures()["database"]


def spill_without_memory() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET work_mem = '64kB'")
        cursor.execute(storage._SPILL)


def test_postgresql_must_have_room_for_a_temporary_file_unless_it_forbids_them() -> None:
    if connection.vendor != "postgresql":
        pytest.skip("PostgreSQL's own")
    announce()

    with in_new_connections("SET temp_file_limit = 1"):  # kB
        connection.close()
        with pytest.raises(DatabaseError, match="temporary file size exceeds"):
            spill_without_memory()
        connection.close()
        assert failures() == {}  # says nothing of the disk


def lock_table() -> None:
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("LOCK TABLE agentexec_activity IN ACCESS EXCLUSIVE MODE")
        else:
            cursor.execute("DELETE FROM agentexec_activity")  # SQLite: one writer at a time


@override_settings(AGENTEXEC={"HEALTH_TIMEOUT": 1.0})
def test_a_locked_table_is_unhealthy_and_health_answers_all_the_same() -> None:
    announce()

    with in_another_connection(lock_table):
        found = failures()  # returns while the table is locked

    assert "database" in found
    assert "queue" not in found
    with override_settings(AGENTEXEC={}):
        # Probes that began while the table was locked may answer once more.
        until(lambda: failures() == {}, "healthy probes")


def test_inside_a_transaction_the_callers_connection_is_probed() -> None:
    announce()

    with transaction.atomic():
        shout.enqueue(Text())  # SQLite: holds the only write lock
        assert failures() == {}
        assert Activity.objects.count() == 1  # the transaction is usable


# Probes


@pytest.fixture
def silent_ping(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[threading.Thread]]:
    """A queue whose server does not answer a ping; yields the threads that wait for it."""
    answers, waiting = threading.Event(), list[threading.Thread]()

    def ping(self: object) -> None:
        waiting.append(threading.current_thread())
        answers.wait(LONGEST)

    monkeypatch.setattr(type(get_queue()), "ping", ping)
    yield waiting
    answers.set()
    for thread in waiting:
        thread.join(LONGEST)


@override_settings(AGENTEXEC={"HEALTH_TIMEOUT": 0.3})
def test_a_probe_without_an_answer_fails_alone_and_is_not_started_again(silent_ping: list[threading.Thread]) -> None:
    announce()

    assert list(failures()) == ["queue"]
    assert "no answer for" in failures()["queue"]
    assert len(silent_ping) == 1


def test_a_fault_of_a_probe_is_reported_and_not_raised(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    announce()

    def fail(self: object) -> str:
        raise RuntimeError("an unexpected answer")

    monkeypatch.setattr(type(get_queue()), "eviction_policy", fail)

    assert failures() == {"eviction policy": "RuntimeError: an unexpected answer"}
    assert "an unexpected answer" in caplog.text


def test_a_redis_that_refuses_writes_is_unhealthy() -> None:
    announce()
    queue = get_queue()
    assert isinstance(queue, RedisQueue)

    queue.client.config_set("maxmemory", "1")
    try:
        found = failures()
    finally:
        queue.client.config_set("maxmemory", "0")

    assert list(found) == ["queue"]
    assert "maxmemory" in found["queue"]


# Workers of another release


def test_an_unknown_field_of_a_newer_release_hides_nothing() -> None:
    write_entry("newer", entry_of("newer", gpus=2, labels={"zone": "a"}))

    assert [(worker.id, worker.is_alive) for worker in monitoring.workers()] == [("newer", True)]
    assert [line.name for line in monitoring.queues()] == ["default"]
    assert failures() == {}
    assert (monitoring.overview().problems, monitoring.health().problems) == ([], [])


@pytest.mark.parametrize(
    "entry",
    [
        "not JSON",
        "[]",
        "null",
        '{"id": "strange"}',
        {"queues": None},
        {"concurrency": "as many as fit"},
        {"last_beat": "just now"},
        {"started": 1e300},
    ],
    ids=str,
)
def test_an_unreadable_entry_is_left_out_and_reported(entry: str | dict[str, object]) -> None:
    announce()
    write_entry("strange", entry if isinstance(entry, str) else entry_of("strange", **entry))

    seen, health = monitoring.overview(), monitoring.health()

    assert [worker.id for worker in seen.workers or []] == ["w-1"]
    assert ["strange" in problem for problem in seen.problems] == [True]
    assert (health.ok, health.problems) == (True, seen.problems)


# Waiting work


def test_work_in_a_queue_that_no_worker_serves_is_unhealthy() -> None:
    announce()
    shout.enqueue(Text(), queue="slow")

    sentence = "No live worker serves queue 'slow'. It holds 1 activity."
    assert failures() == {"waiting work": sentence}
    assert not monitoring.health().ok
    assert monitoring.overview().problems == [sentence]

    announce("w-2", queues=("slow",))
    assert failures() == {}


def test_such_a_queue_stays_in_the_monitor_with_its_rows() -> None:
    shout.enqueue(Text(), queue="slow")
    get_queue().clear()  # neither a worker nor the counters of the last hour know it

    line = next(line for line in monitoring.queues() if line.name == "slow")

    assert (line.waiting_rows, line.pending) == (1, 0)


def test_work_that_only_the_queue_knows_counts_if_a_task_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    announce()
    monkeypatch.setattr(shout, "own_queue", "slow")
    shout.enqueue(Text())
    Activity.objects.all().delete()

    assert list(failures()) == ["waiting work"]


# The reconciler


def test_a_reconciler_that_cannot_do_its_work_is_unhealthy(monkeypatch: pytest.MonkeyPatch) -> None:
    announce()
    leader = Reconciler("pool", ["default"])

    def refuse(**_: object) -> int:
        raise DatabaseError("cannot execute UPDATE in a read-only transaction")

    with monkeypatch.context() as patch:
        patch.setattr(reconciler, "reconcile", refuse)
        leader._run_once()
    assert "read-only" in failures()["reconciler"]

    leader._run_once()
    assert failures() == {}


def test_an_old_failure_is_forgotten_after_a_success_and_pools_without_reports_are_healthy() -> None:
    announce()
    assert failures() == {}  # a pool of an older release reports nothing

    record_reconciliation(DatabaseError("down"))
    record_reconciliation()
    assert failures() == {}
