"""Approvals in real pools: a slot that is free meanwhile, a flushed Redis, expiry, and many processes that decide."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta

import pytest
from django.utils import timezone

from django_agentexec import activity, approvals
from django_agentexec.models import Activity, Approval, Status
from django_agentexec.queues import get_queue
from tests.e2e.journal import Journal
from tests.support.pool_process import environment, pool, run_burst, until
from tests.testapp.agents import Text, Work, shout
from tests.testapp.approvals import approved_work

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]

DECIDERS = 20
DECIDE = """
import multiprocessing, sys
import django
django.setup()
from django_agentexec import AlreadyDecided, approvals

def decide(begin, answers, number):
    begin.wait()
    try:
        decide = approvals.approve if number % 2 else approvals.reject
        answers.put(decide(sys.argv[1], by=f"process-{number}").status)
    except AlreadyDecided as refusal:
        answers.put(f"refused {refusal.approval.status}")

number, context = int(sys.argv[2]), multiprocessing.get_context("fork")
begin, answers = context.Barrier(number), context.SimpleQueue()
processes = [context.Process(target=decide, args=(begin, answers, each)) for each in range(number)]
for process in processes:
    process.start()
for process in processes:
    print(answers.get())
for process in processes:
    process.join()
"""


def waiting_for_decision(journal: Journal, name: str = "letter") -> Approval:
    """Run an activity up to its request, in a pool that ends then."""
    agent_id = approved_work.enqueue(Work(journal=journal.path, name=name)).agent_id
    run_burst("--workers", "1")
    return Approval.objects.get(activity_id=agent_id)


def test_the_only_slot_is_free_while_an_activity_waits_and_a_flushed_redis_loses_nothing(journal: Journal) -> None:
    agent_id = approved_work.enqueue(Work(journal=journal.path, name="letter")).agent_id
    with pool("--workers", "1", "--concurrency", "1"):
        until(lambda: Approval.objects.filter(activity_id=agent_id).exists(), "the request")
        other = shout.enqueue(Text(text="x")).agent_id
        until(lambda: Activity.objects.get(pk=other).status == Status.COMPLETE, "the other activity")
        assert Activity.objects.get(pk=agent_id).is_suspended
        get_queue().client.flushall()  # type: ignore[attr-defined]  # the Redis queue's
        approvals.approve(Approval.objects.get().id)
        until(lambda: Activity.objects.get(pk=agent_id).status == Status.COMPLETE, "the end")

    assert Activity.objects.get(pk=agent_id).result == "sent to Acme"
    assert journal.names("sent") == ["letter"]


@pytest.mark.slow
def test_twenty_processes_make_one_decision_and_the_tool_runs_accordingly(journal: Journal) -> None:
    approval = waiting_for_decision(journal)
    decided = subprocess.run(
        [sys.executable, "-c", DECIDE, str(approval.id), str(DECIDERS)],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
    )
    answers = sorted(decided.stdout.split("\n")[:-1])
    run_burst("--workers", "1")

    approval.refresh_from_db()
    half = DECIDERS // 2
    assert answers == sorted([approval.status] * half + [f"refused {approval.status}"] * half)
    assert Activity.objects.get().status == Status.COMPLETE
    assert journal.names("sent") == (["letter"] if approval.status == "approved" else [])


def test_a_pool_decides_expired_approvals(journal: Journal) -> None:
    approval = waiting_for_decision(journal)
    Approval.objects.update(expires_at=timezone.now() - timedelta(seconds=1), on_expiry="reject")

    with pool("--workers", "1"):
        until(lambda: Activity.objects.get().status == Status.COMPLETE, "the end")

    approval.refresh_from_db()
    assert (approval.status, journal.names("sent")) == ("expired", [])


def test_after_a_cancel_the_tool_never_runs(journal: Journal) -> None:
    approval = waiting_for_decision(journal)
    activity.cancel(approval.activity_id)

    run_burst("--workers", "1")

    approval.refresh_from_db()
    assert (approval.status, journal.names("sent")) == ("void", [])
