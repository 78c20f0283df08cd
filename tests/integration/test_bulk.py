"""Many activities at once: canceled, retried, or refused with the reason."""

from __future__ import annotations

import pytest

from django_agentexec import activity
from django_agentexec.models import Activity, Status
from tests.rows import claimed_ids, row
from tests.testapp.agents import Text, shout

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_bulk_cancel_takes_what_it_can_and_tells_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_agentexec.activity.bulk.BATCH", 2)
    waiting = [run.agent_id for run in shout.enqueue_many([Text()] * 3)]
    for ended in (activity.create("import") for _ in range(2)):
        activity.complete(ended)

    outcome = activity.cancel_many(Activity.objects.all(), "Not needed.")

    assert sorted(outcome.done) == sorted(waiting)
    assert outcome.refused == {"already complete": 2}
    assert {row(one).latest_log_message for one in waiting} == {"Not needed."}
    assert claimed_ids() == []


def test_a_bulk_retry_takes_what_it_can_and_tells_why_not() -> None:
    failed = shout.enqueue(Text()).agent_id
    activity.cancel(failed)
    shout.enqueue(Text())
    by_hand = activity.create("import")
    activity.error(by_hand, "broken")

    outcome = activity.retry_many(Activity.objects.all())

    assert outcome.done == [failed]
    assert outcome.refused == {"still queued": 1, "never queued, driven by hand": 1}
    assert row(failed).status == Status.QUEUED
    assert failed in claimed_ids()
