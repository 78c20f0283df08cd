"""The thin slice: enqueue, a real pool, rows complete."""

from __future__ import annotations

import pytest

from django_agentexec import Status
from django_agentexec.models import Activity
from tests.support.pool_process import run_burst
from tests.testapp.agents import Text, fail, report, shout

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_burst_runs_what_was_enqueued() -> None:
    report_handle = report.enqueue(Text(text="hello big world"))
    shout_handle = shout.enqueue(Text(text="x"))
    fail_handle = fail.enqueue(Text(text="boom"))

    run_burst()

    assert Activity.objects.get(pk=report_handle.agent_id).result == {"title": "hello big world", "words": 3}
    assert Activity.objects.get(pk=shout_handle.agent_id).result == "X"
    failed = Activity.objects.get(pk=fail_handle.agent_id)
    assert (failed.status, failed.error) == (Status.ERROR, "RuntimeError: boom")
    assert "raise RuntimeError(context.text)" in failed.traceback
