"""`manage.py prune_activities`: deleted rows, kept rows, and batches."""

from __future__ import annotations

import json
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_agentexec import InvalidOption, Status, activity
from django_agentexec.activity import prune, pruning
from django_agentexec.calls.pruning import prune_calls
from django_agentexec.models import Activity, ActivityLog
from tests.support.management_commands import call

pytestmark = pytest.mark.django_db(transaction=True)


def id_made(days_ago: float) -> UUID:
    """Return an id of an activity that was created `days_ago`."""
    moment = timezone.now() - timedelta(days=days_ago)
    return UUID(int=int(moment.timestamp() * 1_000) << 80 | 0x7 << 76 | 0b10 << 62 | uuid4().int % 2**62)


def old(status: str = Status.COMPLETE, *, days: float = 40, ended: float | None = None, **fields: Any) -> UUID:
    """Create an activity that began `days` ago, and ended then or `ended` days ago."""
    moment = timezone.now() - timedelta(days=days)
    end = timezone.now() - timedelta(days=days if ended is None else ended)
    finished_at = end if status in (Status.COMPLETE, Status.ERROR, Status.CANCELED) else None
    fields = {"agent_id": id_made(days), "agent_type": "import", **fields}
    made = Activity.objects.create(status=status, created_at=moment, finished_at=finished_at, **fields)
    ActivityLog.objects.create(activity=made, message="then", status=status, created_at=moment)
    return made.agent_id


def left() -> set[UUID]:
    return set(Activity.objects.values_list("agent_id", flat=True))


def test_activities_that_ended_before_the_cutoff_are_deleted_with_their_logs() -> None:
    for status in (Status.COMPLETE, Status.ERROR, Status.CANCELED):
        old(status)
    recent = old(days=20)

    answer = call("prune_activities", "--older-than", "30d")

    assert answer.out == "3 deleted.\n"
    assert left() == {recent}
    assert set(ActivityLog.objects.values_list("activity_id", flat=True)) == {recent}


def test_an_empty_variable_of_a_shell_does_not_delete_all_tasks() -> None:
    kept = {old()}

    answer = call("prune_activities", "--older-than", "30d", "--type=")

    assert (answer.code != 0, left()) == (True, kept)


def test_active_and_recently_ended_activities_stay_however_old() -> None:
    kept = {old(Status.QUEUED, days=400), old(Status.RUNNING, days=400), old(days=400, ended=1)}

    call("prune_activities", "--older-than", "30d")

    assert left() == kept


def test_an_activity_with_a_random_id_is_deleted_too() -> None:
    old(agent_id=UUID(int=uuid4().int | 1 << 127))
    recent = old(days=1, agent_id=UUID(int=uuid4().int | 1 << 127))

    call("prune_activities", "--older-than", "30d")

    assert left() == {recent}


def test_children_stay_without_their_parent() -> None:
    parent = old()
    child = old(Status.RUNNING, days=1, parent_id=parent)

    call("prune_activities", "--older-than", "30d")

    assert left() == {child}
    assert Activity.objects.get().parent_id is None


def test_status_and_type_narrow_it_down() -> None:
    old(Status.ERROR, agent_type="shout")
    kept = {old(Status.ERROR), old(agent_type="shout")}

    call("prune_activities", "--older-than", "30d", "--status", "error", "--type", "shout")

    assert left() == kept


def test_a_dry_run_counts_and_deletes_nothing() -> None:
    both = {old(), old()}

    answer = call("prune_activities", "--older-than", "30d", "--dry-run", "--json")

    assert json.loads(answer.out) == {"deleted": 2, "dry_run": True}
    assert left() == both


def test_each_batch_is_small_and_committed_by_itself() -> None:
    for _ in range(5):
        old()

    batches = prune(timedelta(days=30), batch_size=2)

    assert next(batches) == 2
    assert len(left()) == 3  # committed while the work continues
    assert list(batches) == [2, 1]
    assert left() == set()


def test_rows_that_stay_are_passed_in_steps_too() -> None:
    kept = {old(Status.RUNNING) for _ in range(5)}

    assert list(prune(timedelta(days=30), batch_size=2)) == [0, 0, 0]
    assert left() == kept


def test_younger_rows_are_not_read() -> None:
    old()
    for _ in range(20):
        old(days=1)

    with CaptureQueriesContext(
        connection,
    ) as few:
        assert list(prune(timedelta(days=30), batch_size=5)) == [1]
    old()
    for _ in range(40):
        old(days=1)
    with CaptureQueriesContext(connection) as many:
        assert list(prune(timedelta(days=30), batch_size=5)) == [1]

    assert len(many) == len(few)


def test_contexts_and_results_are_never_read() -> None:
    old(result={"text": "x" * 1000}, context={"text": "y" * 1000})

    with CaptureQueriesContext(connection) as queries:
        list(prune(timedelta(days=30)))

    assert not any('"result"' in query["sql"] or '"context"' in query["sql"] for query in queries)


def test_an_activity_that_is_retried_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    by_hand = old(Status.ERROR, queue="default")

    def retried_before_the_delete(**options: Any) -> Any:
        activity.retry(by_hand)
        return transaction.atomic(**options)

    monkeypatch.setattr(pruning, "transaction", SimpleNamespace(atomic=retried_before_the_delete))

    assert list(prune(timedelta(days=30))) == [0]
    assert left() == {by_hand}


@pytest.mark.parametrize("age", ["30", "-1d", "30 days", "d", "1y", "nand", "1e400d", "99999999999999d"])
def test_an_age_that_cannot_be_read_is_refused(age: str) -> None:
    kept = {old()}

    assert call("prune_activities", f"--older-than={age}").code != 0
    assert left() == kept


def test_an_age_before_all_times_is_refused() -> None:
    answer = call("prune_activities", "--older-than", "900000d")

    assert answer.code == 2
    assert "too large" in answer.err


def test_an_age_may_be_seconds() -> None:
    old(days=40)
    kept = {old(days=2)}

    assert list(prune(3 * 86_400)) == [1]
    assert left() == kept


@pytest.mark.parametrize("age", [30, 0.5, 365, 3_599])
def test_a_number_that_may_be_meant_as_days_deletes_nothing(age: float) -> None:
    kept = {old()}

    with pytest.raises(InvalidOption, match=rf"Give timedelta\(days={age}\) or timedelta\(seconds={age}\)"):
        next(prune(age))
    with pytest.raises(InvalidOption, match="days may be meant"):
        next(prune_calls(age))
    assert left() == kept


@pytest.mark.parametrize("age", [0, 3_600, timedelta(0), timedelta(seconds=30)])
def test_an_age_that_can_only_mean_seconds_is_not_refused(age: float | timedelta) -> None:
    old()

    assert sum(prune(age)) == 1


@pytest.mark.parametrize("age", ["30d", None, True, float("nan"), float("inf"), 10**12])
def test_an_impossible_age_is_refused(age: Any) -> None:
    kept = {old()}

    with pytest.raises(InvalidOption, match=f"The age {age!r} is"):
        next(prune(age))
    assert left() == kept


def test_an_age_in_the_future_is_refused() -> None:
    kept = {old()}

    with pytest.raises(InvalidOption, match="negative"):
        next(prune(timedelta(days=-1)))
    assert left() == kept


@pytest.mark.parametrize("size", [0, -1, 10_001])
def test_an_impossible_batch_size_is_refused(size: int) -> None:
    with pytest.raises(InvalidOption, match="batch size"):
        next(prune(timedelta(days=30), batch_size=size))


async def test_the_async_version_yields_the_number_of_each_batch() -> None:
    for _ in range(3):
        await Activity.objects.acreate(
            agent_type="import",
            status=Status.COMPLETE,
            agent_id=id_made(40),
            finished_at=timezone.now() - timedelta(days=40),
        )

    batches = [number async for number in activity.aprune(timedelta(days=30), batch_size=2)]

    assert sum(batches) == 3
    assert max(batches) == 2
    assert not await Activity.objects.aexists()
