"""Pools and workers that shall end while handlers or the queue's server hang."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from django_agentexec import Status
from django_agentexec.models import Activity
from django_agentexec.pool.supervisor import EXIT_FORCED
from django_agentexec.queues import get_queue
from tests.e2e.journal import Journal
from tests.support.pool_process import environment, pool, until
from tests.support.process_state import is_alive
from tests.support.servers import Valkey
from tests.testapp.agents import Work, block, stubborn, work

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]


def test_handlers_in_every_thread_do_not_hold_up_the_end(journal: Journal) -> None:
    stubborn.enqueue(Work(journal=journal.path, name="a", seconds=60))
    with pool("--workers", "1", "--concurrency", "1", GRACE_PERIOD=0.2) as process:
        until(lambda: journal.pid_of("a"), "the start")
        assert process.stop() == 0

    row = Activity.objects.get()
    assert (row.status, row.attempt, row.crashes) == (Status.QUEUED, 0, 0)
    assert get_queue().stats("default").ready == 1


def test_nor_that_of_a_worker_whose_pool_was_killed(journal: Journal) -> None:
    stubborn.enqueue(Work(journal=journal.path, name="a", seconds=60))
    with pool("--workers", "1", "--concurrency", "1", GRACE_PERIOD=0.2) as process:
        worker = until(lambda: journal.pid_of("a"), "the start")
        process.send(signal.SIGKILL)
        process.wait()
        try:
            until(lambda: not is_alive(worker), "the worker's end", timeout=20)
        finally:
            if is_alive(worker):
                os.kill(worker, signal.SIGKILL)

    row = Activity.objects.get()
    assert (row.status, row.attempt, row.crashes) == (Status.QUEUED, 0, 0)
    assert get_queue().stats("default").ready == 1


def test_nor_that_of_a_single_run_after_ctrl_c(journal: Journal) -> None:
    handle = stubborn.enqueue(Work(journal=journal.path, name="a", seconds=60))
    process = subprocess.Popen(
        [sys.executable, "-m", "django", "agentexec", "run-one", str(handle.agent_id)],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        until(lambda: journal.pid_of("a"), "the start")
        process.send_signal(signal.SIGINT)
        output, remarks = process.communicate(timeout=30)
    finally:
        process.kill()

    assert (process.returncode, output) == (130, "")
    assert "returned to the queue, and waits for a worker" in remarks
    row = Activity.objects.get()
    assert (row.status, row.attempt, row.crashes) == (Status.QUEUED, 0, 0)
    assert get_queue().stats("default").ready == 1


def test_a_deploy_while_the_server_hangs_charges_nobody(journal: Journal, valkey: Valkey) -> None:
    work.enqueue(Work(journal=journal.path, name="a", seconds=60))
    with pool("--workers", "1", GRACE_PERIOD=0.2) as process:
        worker = until(lambda: journal.pid_of("a"), "the start")
        valkey.signal(signal.SIGSTOP)
        try:
            process.send(signal.SIGTERM)
            until(lambda: not is_alive(worker), "the worker's end")
        finally:
            valkey.signal(signal.SIGCONT)
        assert process.wait() == 0

    stats = get_queue().stats("default")
    assert (stats.ready, stats.leased, stats.suspects) == (1, 0, 0)


def test_a_process_that_was_killed_for_being_late_charges_nobody(journal: Journal) -> None:
    block.enqueue(Work(journal=journal.path, name="a", seconds=60))
    with pool("--workers", "1", GRACE_PERIOD=0.2) as process:
        until(lambda: journal.pid_of("a"), "the start")
        assert process.stop() == EXIT_FORCED

    stats = get_queue().stats("default")
    assert (stats.ready, stats.leased, stats.suspects) == (1, 0, 0)
