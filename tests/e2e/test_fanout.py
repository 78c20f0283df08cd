"""Fan-out in real pools: parents wait without a slot, and are woken once, whatever dies."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from django_agentexec import Run, Status, activity, get_result
from django_agentexec.models import ActivityLog
from django_agentexec.queues import get_queue
from tests.e2e.journal import Journal
from tests.e2e.kills import SETTINGS, kill_at_random, plan_deaths, survived
from tests.support.activity_rows import all_ended, messages, row, statuses
from tests.support.pool_process import pool, until
from tests.testapp.orchestration import DEATHS, Fan, fan_out, sync_fan_out

WITHOUT_HELP = {"RECONCILE_INTERVAL": 1_000.0}
"""Nobody dies: whatever only the reconciler would wake must show."""

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]


@pytest.fixture(autouse=True)
def no_leader() -> Iterator[None]:
    """A pool that rarely reconciles leads for long: the next test's pool must not wait for the end of that."""
    yield
    get_queue().client.flushall()  # type: ignore[attr-defined]  # the Redis queue's


def ids_of(journal: Journal) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for event in journal.events("start"):
        found.setdefault(event.name, set()).add(event.agent_id)
    return found


def test_fifty_runs_on_two_slots_are_aggregated_once(journal: Journal) -> None:
    handle = fan_out.enqueue(Fan(journal=journal.path, name="a", seconds=0.02))

    with pool("--workers", "1", "--concurrency", "2", **WITHOUT_HELP):
        assert get_result(handle, timeout=60) == 50

    assert journal.names("end").count("a-total") == 1
    assert statuses() == {Status.COMPLETE: 52}
    assert messages(handle.agent_id).count("Waiting for 50 activities.") == 1


def test_random_kills_change_nothing_of_that(journal: Journal) -> None:
    handles: list[Run] = []

    def feed() -> None:
        if all_ended():
            handles.append(fan_out.enqueue(Fan(journal=journal.path, name=f"p{len(handles)}", seconds=0.1)))

    with pool("--workers", "2", "--concurrency", "1", **SETTINGS) as process:
        kill_at_random(process, feed)
        until(all_ended, "the end of all", timeout=240)

    print(f"{len(handles)} parents of 50 children")
    assert {row(handle.agent_id).result for handle in handles} == {50}
    assert statuses() == {Status.COMPLETE: 52 * len(handles)}
    assert {len(ids) for ids in ids_of(journal).values()} == {1}
    assert ActivityLog.objects.filter(status=Status.COMPLETE).count() == 52 * len(handles)


@pytest.mark.parametrize("task", [fan_out, sync_fan_out], ids=lambda task: task.name)
def test_a_pool_full_of_parents_does_not_block_itself(journal: Journal, task: object) -> None:
    handles = [task.enqueue(Fan(journal=journal.path, name=str(n), width=3)) for n in range(12)]  # type: ignore[attr-defined]

    with pool("--workers", "1", "--concurrency", "2", **WITHOUT_HELP):
        assert [get_result(handle, timeout=60) for handle in handles] == [3] * 12


def test_deaths_on_the_way_into_and_out_of_a_wait(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    plan_deaths(journal, ["park:uncommitted", "park:committed", "wake:uncommitted", "wake:committed"])
    monkeypatch.setenv(DEATHS, journal.path)
    handles: list[Run] = []

    def every_death_has_come() -> bool:
        # A child may be faster than the wait for it; then the next family comes to the place that is left.
        if all_ended():
            handles.append(fan_out.enqueue(Fan(journal=journal.path, name=f"p{len(handles)}", width=5, seconds=0.5)))
        return survived(journal) == []

    with pool("--workers", "1", "--concurrency", "2", **SETTINGS):
        until(every_death_has_come, "all deaths", timeout=120)
        assert [get_result(handle, timeout=60) for handle in handles] == [5] * len(handles)

    assert {len(ids) for ids in ids_of(journal).values()} == {1}


def test_a_cancel_reaches_children_in_other_processes(journal: Journal) -> None:
    handle = fan_out.enqueue(Fan(journal=journal.path, name="a", width=6, seconds=30))

    with pool("--workers", "2", "--concurrency", "2"):
        until(lambda: len(journal.names("start")) == 4, "full slots")
        activity.cancel(handle.agent_id)
        until(all_ended, "the end of all", timeout=10)

    assert statuses() == {Status.CANCELED: 7}
    assert journal.names("end") == []
