"""Idempotent tools in real worker processes: one executes, the others wait, also if the process dies."""

from __future__ import annotations

from pathlib import Path

import pytest

from django_agentexec import get_result
from tests.e2e.journal import Journal
from tests.support.pool_process import pool, until
from tests.testapp.charging import POLICY, charge
from tests.testapp.work import Work

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]

TENANT = {"organization_id": "a"}
PROCESSES = {"POLICY": POLICY, "CONCURRENCY": 1, "LEASE": 2.0}


def test_of_two_workers_one_executes_and_the_other_gets_the_result(journal: Journal, tmp_path: Path) -> None:
    work = [Work(journal=journal.path, name=str(tmp_path), key=key) for key in ("first", "second")]
    handles = [charge.enqueue(each, metadata=TENANT) for each in work]
    with pool("--workers", "2", **PROCESSES):
        until(lambda: len(journal.events("start")) == 2 and journal.events("charged"), "two workers at the tool")
        (tmp_path / "gate").touch()
        results = [get_result(handle, timeout=60) for handle in handles]

    assert len({event.pid for event in journal.events("start")}) == 2
    assert [event.pid for event in journal.events("charged")] == [results[0]]
    assert results[0] == results[1]


def test_if_the_executing_process_is_killed_the_tool_is_executed_once_more(journal: Journal, tmp_path: Path) -> None:
    (tmp_path / "dies").touch()
    (tmp_path / "gate").touch()
    work = [Work(journal=journal.path, name=str(tmp_path), key=key) for key in ("first", "second")]
    handles = [charge.enqueue(each, metadata=TENANT) for each in work]
    with pool("--workers", "2", **PROCESSES):
        results = [get_result(handle, timeout=60) for handle in handles]

    assert results[0] == results[1]
    assert len(journal.events("charged")) == 2
