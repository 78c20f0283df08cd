"""Many activities at once: canceled, retried, or refused with the reason."""

from __future__ import annotations

import pytest

from django_agentexec import Status, activity
from django_agentexec.models import Activity
from tests.support.activity_rows import claimed_ids, row
from tests.testapp.agents import Text, shout

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_bulk_cancel_reports_refused_activities_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_agentexec.activity.bulk.ROWS_PER_TRANSACTION", 2)
    waiting = [run.agent_id for run in shout.enqueue_many([Text()] * 3)]
    for ended in (activity.create("import") for _ in range(2)):
        activity.complete(ended)

    outcome = activity.cancel_many(Activity.objects.all(), "Not needed.")

    assert sorted(outcome.done) == sorted(waiting)
    assert outcome.refused == {"already complete": 2}
    assert {row(one).latest_log_message for one in waiting} == {"Not needed."}
    assert claimed_ids() == []


def test_a_bulk_retry_reports_refused_activities_with_the_reason() -> None:
    failed = shout.enqueue(Text()).agent_id
    activity.cancel(failed)
    shout.enqueue(Text())
    by_hand = activity.create("import")
    activity.error(by_hand, "broken")

    outcome = activity.retry_many(Activity.objects.all())

    assert outcome.done == [failed]
    assert outcome.refused == {"still queued": 1, "never queued, driven by its creator": 1}
    assert row(failed).status == Status.QUEUED
    assert failed in claimed_ids()


def test_a_queryset_cancels_its_active_activities() -> None:
    waiting, other = shout.enqueue(Text()).agent_id, shout.enqueue(Text(), metadata={"tenant": "b"}).agent_id

    outcome = Activity.objects.exclude(agent_id=other).cancel("Not needed.")

    assert outcome.done == [waiting]
    assert (row(waiting).status, row(other).status) == (Status.CANCELED, Status.QUEUED)
    assert row(waiting).latest_log_message == "Not needed."


def test_a_queryset_retries_its_retryable_activities_and_ignores_the_others() -> None:
    failed = shout.enqueue(Text()).agent_id
    activity.cancel(failed)
    shout.enqueue(Text())
    activity.error(activity.create("import"), "broken")

    retryable = Activity.objects.retryable()
    assert [found.agent_id for found in retryable] == [failed]
    assert {found.agent_id: found.is_retryable for found in Activity.objects.all()}[failed]
    assert sum(found.is_retryable for found in Activity.objects.all()) == 1

    outcome = Activity.objects.all().retry()

    assert (outcome.done, outcome.refused) == ([failed], {})
    assert row(failed).status == Status.QUEUED


async def test_a_queryset_has_async_versions_of_its_bulk_changes() -> None:
    run = await shout.aenqueue(Text())

    assert (await Activity.objects.all().acancel()).done == [run.agent_id]
    assert (await Activity.objects.all().aretry()).done == [run.agent_id]


def test_bulk_changes_of_all_rows_need_an_explicit_queryset_and_are_hidden_from_templates() -> None:
    assert not hasattr(Activity.objects, "cancel")
    assert not hasattr(Activity.objects, "retry")
    assert Activity.objects.all().cancel.alters_data  # type: ignore[attr-defined]
