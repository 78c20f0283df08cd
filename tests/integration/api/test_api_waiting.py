"""Requests that wait for a change: one read for all of them, and few of one user at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError, connections
from django.test import override_settings

from django_agentexec import activity
from django_agentexec.api import waiting
from django_agentexec.models import Activity
from tests.support.pool_process import PATIENCE, until
from tests.support.rest_api import admin, client, staff
from tests.support.waits import held_waits, waiting_requests

pytestmark = pytest.mark.django_db(transaction=True)

THREAD = "agentexec-waiting"
Elsewhere = Callable[..., Future[Any]]


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    """Run requests in threads of their own."""
    with ThreadPoolExecutor(40) as pool:

        def call(function: Callable[..., Any], *args: Any) -> Any:
            try:
                return function(*args)
            finally:
                connections.close_all()

        yield lambda function, *args: pool.submit(call, function, *args)


def detail(user: User, agent_id: UUID, **query: object) -> Any:
    return client(user).get(f"/agents/activities/{agent_id}/", query)


@override_settings(AGENTEXEC={"API_MAX_WAITS": 100})
def test_many_waits_share_one_read(elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [activity.create("import") for _ in range(30)]
    users = [staff(f"user-{number}", "view_activity") for number in range(2)]
    reads: list[set[UUID]] = []

    class Noted:
        """The rows, of which the thread for all requests reads many at once."""

        @staticmethod
        def filter(**conditions: Any) -> Any:
            if wanted := conditions.get("agent_id__in"):
                assert threading.current_thread().name == THREAD
                reads.append(set(wanted))
            return Activity.objects.filter(**conditions)

    monkeypatch.setattr(waiting, "Activity", SimpleNamespace(objects=Noted))
    answers = [elsewhere(detail, users[number % 2], run) for number, run in enumerate(runs)]
    assert all(answer.result(PATIENCE).status_code == 200 for answer in answers)

    waits = [elsewhere(lambda u, r: detail(u, r, wait=20), users[number % 2], run) for number, run in enumerate(runs)]
    until(lambda: waiting_requests() == len(runs), "all wait")
    until(lambda: set(runs) in reads, "one read for all")
    for run in runs:
        activity.cancel(run)
    states = {wait.result(PATIENCE).json()["status"] for wait in waits}

    assert states == {"canceled"}
    assert waiting_requests() == 0
    until(lambda: THREAD not in {each.name for each in threading.enumerate()}, "the thread ends with the last wait")


def test_a_failed_read_counts_as_no_change(elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch) -> None:
    run, user = activity.create("import"), admin()
    failures: list[None] = []

    class Unavailable:
        @property
        def objects(self) -> Any:
            if threading.current_thread().name == THREAD and len(failures) < 3:
                failures.append(None)
                raise OperationalError("too many connections")
            return Activity.objects

    monkeypatch.setattr(waiting, "POLL_INTERVAL", 0.01)
    monkeypatch.setattr(waiting, "Activity", Unavailable())
    wait = elsewhere(lambda: detail(user, run, wait=20))
    until(lambda: len(failures) == 3, "reads have failed")
    assert not wait.done()
    activity.update(run, "running")

    assert wait.result(PATIENCE).json()["status"] == "running"


def test_an_activity_that_is_deleted_ends_the_wait(elsewhere: Elsewhere) -> None:
    run, user = activity.create("import"), admin()
    wait = elsewhere(lambda: detail(user, run, wait=20))
    until(lambda: waiting_requests() == 1, "it waits")
    Activity.objects.filter(pk=run).delete()

    assert wait.result(PATIENCE).status_code == 404


@override_settings(AGENTEXEC={"API_MAX_WAITS": 2})
def test_one_user_cannot_occupy_every_thread(elsewhere: Elsewhere) -> None:
    run = activity.create("import")
    one, other = [staff(name, "view_activity") for name in ("one", "other")]
    waits = [elsewhere(lambda: detail(one, run, wait=20)) for _ in range(2)]
    until(lambda: waiting_requests() == 2, "both wait")

    refused = detail(one, run, wait=20)
    at_once = detail(one, run)
    of_other = elsewhere(lambda: detail(other, run, wait=20))
    until(lambda: waiting_requests() == 3, "another user waits, too")
    activity.cancel(run)

    assert (refused.status_code, refused["Retry-After"]) == (429, "5")
    assert at_once.status_code == 200
    assert [wait.result(PATIENCE).json()["status"] for wait in (*waits, of_other)] == ["canceled"] * 3
    assert held_waits() == 0


def test_few_requests_use_the_database_at_once() -> None:
    inside, most = [], []
    leave = threading.Event()

    def request() -> None:
        with waiting.Turn() as turn:
            inside.append(None)
            most.append(len(inside))
            leave.wait(PATIENCE)
            inside.pop()
            with turn.released():
                pass

    threads = [threading.Thread(target=request) for _ in range(3 * waiting.MAX_READERS)]
    for thread in threads:
        thread.start()
    until(lambda: len(inside) == waiting.MAX_READERS, "all turns are taken")
    leave.set()
    for thread in threads:
        thread.join(PATIENCE)

    assert max(most) <= waiting.MAX_READERS
    assert len(most) == len(threads)
