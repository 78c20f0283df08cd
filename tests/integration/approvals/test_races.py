"""Many decisions at once: one of them counts, and the tool runs at most once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection, connections
from django.utils import timezone

from django_agentexec import AlreadyDecided, ApprovalVoid, InvalidTransition, activity, approvals
from django_agentexec.approvals.expiry import expire_due
from django_agentexec.models import Activity, ActivityLog, Approval, Status
from django_agentexec.testing import memory_queue
from tests.support.activity_rows import claim
from tests.support.approval_rows import waiting

pytestmark = pytest.mark.django_db(transaction=True)

DECIDERS = 20


@pytest.fixture(autouse=True)
def queue() -> Iterator[None]:
    if connection.vendor == "sqlite" and connection.is_in_memory_db():
        pytest.skip("Threads do not share a database in memory; e2e tests decide in processes.")
    with memory_queue():
        yield


def at_once(*functions: object) -> Counter[str]:
    """Call all functions at the same time, each in a thread; return how many ended with which name."""
    barrier = threading.Barrier(len(functions))

    def call(function: object) -> str:
        barrier.wait(30)
        try:
            return str(function())  # type: ignore[operator]
        except (AlreadyDecided, ApprovalVoid, InvalidTransition) as error:
            return type(error).__name__
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(functions)) as pool:
        return Counter(pool.map(call, functions))


def test_twenty_deciders_make_one_decision() -> None:
    (approval,) = waiting()

    def approve() -> str:
        return approvals.approve(approval.id).status

    def reject() -> str:
        return approvals.reject(approval.id).status

    outcomes = at_once(*([approve, reject] * (DECIDERS // 2)))

    approval.refresh_from_db()
    assert outcomes == {approval.status: DECIDERS // 2, "AlreadyDecided": DECIDERS // 2}
    assert ActivityLog.objects.filter(message__startswith="send_letter was").count() == 1
    assert Activity.objects.get().status == Status.QUEUED
    assert len(claim()) == 1


def test_a_decision_and_a_cancel_exclude_each_other() -> None:
    (approval,) = waiting()

    at_once(
        lambda: approvals.approve(approval.id).status,
        lambda: activity.cancel(approval.activity_id),
    )

    approval.refresh_from_db()
    assert Activity.objects.get().status == Status.CANCELED
    assert approval.status in ("approved", "void")


def test_a_decision_and_its_expiry_exclude_each_other() -> None:
    (approval,) = waiting(seconds=0.001)
    assert approval.expires_at is not None
    while timezone.now() <= approval.expires_at:
        pass

    at_once(lambda: approvals.approve(approval.id).status, expire_due, expire_due)

    assert Approval.objects.get().status == "expired"
    assert ActivityLog.objects.filter(message__contains="was not decided in time").count() == 1
