"""`attempt.once` in a process that is killed: a recorded side effect is not repeated."""

from __future__ import annotations

from pathlib import Path

import pytest

from django_agentexec import get_result
from django_agentexec.models import Activity, AgentCall, CallState
from tests.e2e.journal import Journal
from tests.support.pool_process import pool
from tests.testapp.agents import Work, pay_and_die

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]


@pytest.mark.parametrize(("moment", "payments"), [("after", 1), ("during", 2)])
def test_a_killed_worker_repeats_only_a_side_effect_in_flight(
    journal: Journal, tmp_path: Path, moment: str, payments: int
) -> None:
    handle = pay_and_die.enqueue(Work(journal=journal.path, name=str(tmp_path / "died"), key=moment))
    with pool("--workers", "1"):
        assert get_result(handle, timeout=60) == 7

    assert Activity.objects.get().crashes == 1
    assert AgentCall.objects.get().state == CallState.DONE
    keys = journal.names("paid")
    assert len(keys) == payments
    assert len(set(keys)) == 1  # the service that receives it can find out that it has it already
