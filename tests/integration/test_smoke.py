"""The thin slice: enqueue, a real pool, rows complete."""

from __future__ import annotations

import pytest

from django_agentexec import Status
from django_agentexec.models import Activity
from tests.support.pool_process import run_burst
from tests.testapp.agents import Text, fail, report, shout
from tests.unit.test_lazy_import import SETUP, loaded_after

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


def test_pools_of_the_tests_do_without_the_sdk() -> None:
    """A pool has two processes that import the tasks, a second of CPU each with the SDK; the tests start 150 pools."""
    loaded = loaded_after(f"{SETUP}\nfrom django_agentexec.tasks.registry import registry\nregistry.discover()")

    assert "tests.testapp.durable" in loaded
    assert not loaded & {"agents", "openai", "pydantic_ai"}
