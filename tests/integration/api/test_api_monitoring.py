"""Workers, queues, health and metrics over REST."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any
from unittest.mock import ANY

import pytest
from django.test import override_settings
from prometheus_client.parser import text_string_to_metric_families

from django_agentexec import QueueUnavailable, activity
from django_agentexec.api import monitoring as views
from django_agentexec.models import WaitingFor
from django_agentexec.monitoring.metrics import counting
from django_agentexec.queues import WorkerInfo, get_queue
from django_agentexec.queues.redis import RedisQueue
from tests.support.rest_api import POLICY, admin, client, member, staff
from tests.testapp.agents import Text, shout

committed = pytest.mark.django_db(transaction=True)
rows = pytest.mark.django_db


def register_worker(**fields: object) -> None:
    known = {"id": "w-1", "host": "h", "pid": 7, "queues": ["default"], "concurrency": 50, "quarantine": False}
    get_queue().register_worker(WorkerInfo(**known, started=time.time(), last_beat=time.time(), **fields))  # type: ignore[arg-type]


@rows
def test_workers_and_queues_are_listed() -> None:
    register_worker(running=2)
    who = client(admin())

    (worker,) = who.get("/agents/workers/").json()
    (queue,) = who.get("/agents/queues/").json()

    assert (worker["id"], worker["running"], worker["is_alive"]) == ("w-1", 2, True)
    assert (queue["name"], queue["pending"], queue["oldest_age"]) == ("default", 0, None)


@committed
def test_a_queue_has_its_depth() -> None:
    shout.enqueue(Text())
    shout.enqueue(Text(), delay=60)

    (queue,) = client(admin()).get("/agents/queues/").json()

    assert (queue["pending"], queue["delayed"]) == (1, 1)
    assert queue["oldest_age"] >= 0


@rows
def test_health_is_public_and_its_checks_require_the_monitor_permission() -> None:
    register_worker()

    stranger, monitor = client().get("/agents/health/"), client(admin()).get("/agents/health/")

    assert (stranger.status_code, stranger.json()) == (200, {"ok": True})
    assert monitor.json()["ok"] is True
    assert {check["name"] for check in monitor.json()["checks"]} >= {"database", "queue", "workers", "reconciler"}


@rows
def test_without_a_worker_the_installation_is_not_fit() -> None:
    answer = client().get("/agents/health/")

    assert (answer.status_code, answer.json()) == (503, {"ok": False})
    assert client(staff("viewer", "view_activity")).get("/agents/health/").json()["checks"]


@rows
@override_settings(AGENTEXEC={"POLICY": POLICY})
@pytest.mark.parametrize("path", ["workers/", "queues/", "metrics"])
def test_a_tenant_sees_nothing_of_the_servers(path: str) -> None:
    who = client(member("org-1"))

    assert who.get(f"/agents/{path}").status_code == 403
    assert who.get("/agents/health/").json() == {"ok": False}


@rows
def test_an_unavailable_queue_is_a_503(monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> None:
        raise QueueUnavailable("Redis does not answer.")

    monkeypatch.setattr(views.monitoring, "workers", away)

    answer = client(admin()).get("/agents/workers/")

    assert (answer.status_code, answer.json()) == (503, {"detail": "Redis does not answer."})


@pytest.fixture
def read_counters() -> Iterator[None]:
    """A task that was enqueued, and an activity that used tokens and ended."""
    register_worker(running=3)
    shout.enqueue(Text())
    run = activity.create("import")
    activity.update(run, "Reading")
    activity.add_usage(run, {"input_tokens": 7})
    activity.complete(run)
    counting.flush()
    yield
    counting.reset()


def samples_of(answer: Any) -> dict[tuple[object, ...], float]:
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.content.decode())
        for sample in family.samples
    }


@committed
@pytest.mark.usefixtures("read_counters")
def test_prometheus_reads_the_metrics() -> None:
    answer = client(admin()).get("/agents/metrics", headers={"Accept": "application/openmetrics-text"})

    assert answer["Content-Type"].startswith("text/plain; version=0.0.4")
    samples = samples_of(answer)
    task = ("task", "shout")
    assert samples["agentexec_enqueued_total", ("queue", "default"), task] == 1
    done = ("queue", ""), ("status", "complete"), ("task", "import")
    assert samples["agentexec_finished_total", *done] == 1
    assert samples["agentexec_tokens_total", ("kind", "input_tokens"), ("task", "import")] == 7
    assert samples["agentexec_duration_seconds_count", ("task", "import")] == 1
    assert samples["agentexec_duration_seconds_bucket", ("le", "+Inf"), ("task", "import")] == 1
    assert samples["agentexec_queue_activities", ("place", "pending"), ("queue", "default")] == 1
    assert samples["agentexec_workers", ("state", "alive")] == 1
    assert (samples["agentexec_slots",], samples["agentexec_slots_used",]) == (50, 3)
    assert samples["agentexec_queue_up",] == 1
    assert samples["agentexec_active_rows", ("queue", "default"), ("status", "queued")] == 1


@committed
@pytest.mark.usefixtures("read_counters")
def test_without_redis_unknown_metrics_are_absent_and_rows_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object, names: object) -> None:
        raise QueueUnavailable("Redis does not answer.")

    monkeypatch.setattr(type(get_queue()), "read_counters", refuse)
    answer = client(admin()).get("/agents/metrics")

    assert answer.status_code == 200
    assert samples_of(answer) == {
        ("agentexec_queue_up",): 0,
        ("agentexec_active_rows", ("queue", "default"), ("status", "queued")): 1,
        ("agentexec_active_rows", ("queue", "default"), ("status", "running")): 0,
        **{("agentexec_suspended_rows", ("reason", reason)): 0 for reason in WaitingFor.values},
        ("agentexec_queue_oldest_age_seconds", ("queue", "default")): ANY,
    }


@committed
def test_an_entry_of_a_newer_release_breaks_no_view() -> None:
    register_worker()
    queue = get_queue()
    assert isinstance(queue, RedisQueue)
    queue.client.hset(
        "agentexec:workers", "newer", json.dumps({**queue.workers()[0].as_dict(), "id": "w-2", "gpus": 1})
    )
    queue.client.hset("agentexec:workers", "strange", "<xml/>")
    who = client(admin())

    answers = {path: who.get(f"/agents/{path}") for path in ("workers/", "queues/", "metrics", "health/")}

    assert {path: answer.status_code for path, answer in answers.items()} == dict.fromkeys(answers, 200)
    assert {worker["id"] for worker in answers["workers/"].json()} == {"w-1", "w-2"}
    (problem,) = answers["health/"].json()["problems"]
    assert "strange" in problem
