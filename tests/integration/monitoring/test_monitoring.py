"""What monitoring reports: counters, minutes, workers, queues, health."""

from __future__ import annotations

import os
import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_agentexec import QueueUnavailable, activity, monitoring
from django_agentexec.activity.store import apply
from django_agentexec.activity.transitions import Complete, Progress
from django_agentexec.models import Activity
from django_agentexec.monitoring import Histogram
from django_agentexec.monitoring.counters import last_hour
from django_agentexec.monitoring.metrics import Counting, counting
from django_agentexec.queues import WorkerInfo, get_queue
from tests.support.activity_rows import claim, start
from tests.support.health_checks import failures
from tests.testapp.agents import Text, shout

pytestmark = pytest.mark.django_db(transaction=True)

UNREACHABLE = {"agentexec": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": "redis://127.0.0.1:1/0"}}


def register_worker(name: str = "w-1", *, silent: float = 0.0, **fields: Any) -> None:
    now = time.time()
    info = WorkerInfo(
        id=name, host="h", pid=os.getpid(), queues=["default"], concurrency=10, quarantine=False, started=now - 60
    )
    info.last_beat = now - silent
    for one, value in fields.items():
        setattr(info, one, value)
    get_queue().register_worker(info)


# Counters


def test_a_life_is_counted_by_task_queue_and_status() -> None:
    agent_id = shout.enqueue(Text()).agent_id
    start(agent_id)
    activity.add_usage(agent_id, {"input_tokens": 7, "requests": 1})
    activity.add_usage(agent_id, {"input_tokens": 5})
    activity.complete(agent_id)
    counting.flush()

    found = monitoring.counters()
    assert found.enqueued == {("shout", "default"): 1}
    assert found.finished == {("shout", "default", "complete"): 1}
    assert found.tokens == {("shout", "input_tokens"): 12, ("shout", "requests"): 1}
    assert sum(found.wait["shout"].counts) == sum(found.duration["shout"].counts) == 1


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_does_not_count_what_its_parent_counts() -> None:
    shout.enqueue(Text())

    child = os.fork()
    if child == 0:
        try:
            counting.flush()
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    counting.flush()

    assert monitoring.counters().enqueued == {("shout", "default"): 1}


def test_an_end_counts_once_whatever_else_its_commit_holds() -> None:
    agent_id = shout.enqueue(Text()).agent_id
    start(agent_id)

    apply([Progress(agent_id=agent_id, fence=1, message="Nearly"), Complete(agent_id=agent_id, fence=1)])
    counting.flush()

    assert monitoring.counters().finished == {("shout", "default", "complete"): 1}


def test_the_wait_is_that_of_the_turn_and_not_of_the_delay() -> None:
    agent_id = shout.enqueue(Text()).agent_id
    Activity.objects.update(
        latest_log_timestamp=timezone.now() - timedelta(hours=1), run_after=timezone.now() - timedelta(seconds=30)
    )
    start(agent_id)
    counting.flush()

    assert monitoring.counters().wait["shout"].total == pytest.approx(30, abs=3)


def test_progress_counts_nothing() -> None:
    agent_id = shout.enqueue(Text()).agent_id
    start(agent_id)
    activity.update(agent_id, "half", 50)
    counting.flush()

    assert sum(monitoring.counters().wait["shout"].counts) == 1
    assert monitoring.counters().finished == {}


def test_counting_can_be_switched_off() -> None:
    with override_settings(AGENTEXEC={"METRICS": False}):
        shout.enqueue(Text())
        counting.flush()

    assert monitoring.counters().enqueued == {}


def test_sums_go_out_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support.pool_process import until

    monkeypatch.setattr("django_agentexec.monitoring.metrics.FLUSH_INTERVAL", 0.01)
    shout.enqueue(Text())

    until(lambda: monitoring.counters().enqueued == {("shout", "default"): 1}, "the flush")


def test_what_cannot_be_handed_over_is_kept(settings: Any) -> None:
    shout.enqueue(Text())
    with override_settings(CACHES=UNREACHABLE):
        get_queue().close()
        counting.flush()
        get_queue().close()
    counting.flush()

    assert monitoring.counters().enqueued == {("shout", "default"): 1}


def test_a_flush_waits_for_a_flush_in_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    own, is_writing, may_end, ends = Counting(), threading.Event(), threading.Event(), list[str]()

    def write(*args: object, **kwargs: object) -> None:
        is_writing.set()
        may_end.wait(30)

    def flush(name: str) -> None:
        own.flush()
        ends.append(name)

    monkeypatch.setattr(type(get_queue()), "increment_counters", write)
    own.add({"a": 1}, {})
    first, second = (threading.Thread(target=flush, args=[name]) for name in ("first", "second"))
    first.start()
    is_writing.wait(30)
    second.start()  # has nothing to write
    second.join(0.05)
    assert ends == []
    may_end.set()
    first.join(30)
    second.join(30)

    assert sorted(ends) == ["first", "second"]


def test_minutes_tell_what_happened_when() -> None:
    done, canceled = (shout.enqueue(Text()).agent_id for _ in range(2))
    start(done)
    activity.complete(done)
    activity.cancel(canceled)
    counting.flush()

    passed = last_hour()
    assert len(passed.minutes) == 60
    assert sum(minute.enqueued for minute in passed.minutes[-2:]) == 2
    assert sum(minute.complete for minute in passed.minutes[-2:]) == 1
    assert sum(minute.canceled for minute in passed.minutes[-2:]) == 1
    assert passed.per_minute == {"default": pytest.approx(0.4)}


def test_an_hour_later_nothing_is_left_of_them() -> None:
    shout.enqueue(Text())
    counting.flush()

    assert not any(minute.enqueued for minute in last_hour(time.time() + 3_700).minutes)


@pytest.mark.parametrize(
    ("counts", "share", "value"),
    [([0, 0, 0], 0.5, None), ([1, 0, 0], 0.5, 1), ([1, 1, 0], 0.95, 10), ([0, 0, 3], 0.5, 10)],
)
def test_a_quantile_is_its_buckets_bound(counts: list[float], share: float, value: float | None) -> None:
    assert Histogram((1, 10, float("inf")), counts).quantile(share) == value


# Workers and queues


def test_a_silent_worker_is_not_alive() -> None:
    register_worker("alive")
    register_worker("silent", silent=60)

    assert {worker.id: worker.is_alive for worker in monitoring.workers()} == {"alive": True, "silent": False}


def test_a_queue_tells_what_waits_and_for_how_long() -> None:
    shout.enqueue_many([Text()] * 3)
    shout.enqueue(Text(), delay=600)
    Activity.objects.filter(run_after=None).update(latest_log_timestamp=timezone.now() - timedelta(seconds=90))
    claim(limit=1)

    (line,) = monitoring.queues()
    assert (line.name, line.pending, line.running, line.delayed) == ("default", 2, 1, 1)
    assert line.oldest_age == pytest.approx(90, abs=5)


def test_an_overview_has_all_in_three_queries() -> None:
    register_worker()
    shout.enqueue_many([Text()] * 3)

    with CaptureQueriesContext(connection) as queries:
        seen = monitoring.overview()

    assert len(queries) == 3
    assert (seen.queued, seen.running, seen.problems) == (3, 0, [])
    assert [worker.id for worker in seen.workers] == ["w-1"]


def test_an_overview_names_what_is_wrong() -> None:
    register_worker("w-1", queues=["other"])
    register_worker("silent", silent=60, queues=["other"])

    assert monitoring.overview().problems == [
        "No live worker serves queue 'default'.",
        "Worker silent has sent no heartbeat for longer than its lease.",
    ]


def test_an_overview_without_the_queue_tells_what_the_database_knows() -> None:
    shout.enqueue(Text())

    with override_settings(CACHES=UNREACHABLE):
        get_queue().close()
        seen = monitoring.overview()
        get_queue().close()

    assert (seen.queued, seen.running, seen.problems[0].count("does not answer")) == (1, 0, 1)
    assert (seen.workers, seen.minutes, seen.complete_last_hour, seen.last_known) == (None, None, None, None)
    assert [(line.name, line.waiting_rows, line.pending, line.per_minute) for line in seen.queues] == [
        ("default", 1, None, None)
    ]
    assert not seen.is_live


def test_an_overview_without_the_queue_has_the_last_known_values(monkeypatch: pytest.MonkeyPatch) -> None:
    register_worker()
    before = monitoring.overview()

    def refuse(self: object, names: object) -> None:
        raise QueueUnavailable("Redis does not answer.")

    monkeypatch.setattr(type(get_queue()), "read_counters", refuse)
    seen = monitoring.overview()

    assert (before.is_live, seen.is_live, seen.workers) == (True, False, None)
    assert seen.last_known is not None
    assert (seen.last_known.at, seen.last_known.complete_last_hour) == (before.at, 0)
    assert [worker.id for worker in seen.last_known.workers] == ["w-1"]


# Health


def test_all_is_well_with_a_worker() -> None:
    register_worker()

    assert list(failures()) == []
    assert monitoring.health().ok


def test_without_a_worker_nothing_runs() -> None:
    register_worker(quarantine=True)

    assert list(failures()) == ["workers"]
    assert not monitoring.health().ok


def test_without_the_queue_nothing_runs() -> None:
    with override_settings(CACHES=UNREACHABLE):
        get_queue().close()
        assert {"queue", "workers"} <= failures().keys()
        get_queue().close()


def test_a_row_that_is_missing_in_its_queue_for_long_is_a_fault() -> None:
    register_worker()
    shout.enqueue(Text())
    get_queue().clear()
    register_worker()
    before = list(failures())
    Activity.objects.update(updated_at=timezone.now() - timedelta(minutes=10))

    assert (before, list(failures())) == ([], ["reconciler"])


def test_an_evicting_server_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    register_worker()
    monkeypatch.setattr(type(get_queue()), "eviction_policy", lambda self: "allkeys-lru")

    assert list(failures()) == ["eviction policy"]
    assert monitoring.health().ok
