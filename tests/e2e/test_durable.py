"""Durable agents in real worker processes that are killed at every point: nothing that was committed happens again.

A run without a death lists the points of a scenario. Then one activity per point dies there, once. By default some
points of each scenario are chosen; `AGENTEXEC_TEST_AGENT_KILLS=all` (`make chaos-agents`) takes all of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connection

from tests.e2e.durable_answers import ScriptedServer
from tests.e2e.durable_cases import Case, Figures, check, finish, start
from tests.support.pool_process import pool
from tests.testapp.kill_points import lines, plan

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sdk_in_pools")]

ALL = os.environ.get("AGENTEXEC_TEST_AGENT_KILLS") == "all"
CHOSEN = 2  # points of each scenario in the short form
TABLE = os.environ.get("AGENTEXEC_TEST_AGENT_KILLS_TABLE")
"""A file to which each scenario appends its lines."""
DECISION = "Suspended#0"
"""The point at which an activity begins to wait for a decision."""


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as running:
        yield running


def points_of(case: Case) -> list[str]:
    points = list(dict.fromkeys(lines(str(case.folder), "points")))
    if ALL:
        return points
    step = max(1, len(points) // CHOSEN)
    return points[step // 2 :: step][:CHOSEN]


SCENARIOS = [
    ("sequential", "responses"),
    ("parallel", "chat"),
    ("handoffs", "responses"),
    ("agents_as_tools", "chat"),
    ("streaming", "chat"),
    ("streaming", "responses"),
    ("guardrails", "chat"),
    ("mcp", "responses"),
    ("approval", "chat"),
    ("nested_approval", "responses"),
    ("gather", "chat"),
    ("changed_code", "responses"),
    ("session", "responses"),
    ("session_approval", "chat"),
    ("pydantic_ai", "chat"),
]
GROUPS = [[each] for each in SCENARIOS] if ALL else [SCENARIOS]
"""Scenarios that share a pool."""


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: "-".join(group[0]) if ALL else "some")
def test_killed_agents_repeat_nothing_that_was_committed(
    server: ScriptedServer, tmp_path: Path, group: list[tuple[str, str]]
) -> None:
    with pool("--workers", "2", "--concurrency", "1", RECONCILE_INTERVAL=1.0):
        whole = [start(server, tmp_path / f"{name}-{api}", name, api) for name, api in group]
        finish(server, whole)
        killed = [
            [
                start(server, tmp_path / f"{case.folder.name}-{number}", name, api, point)
                for number, point in enumerate(points_of(case))
            ]
            for case, (name, api) in zip(whole, group, strict=True)
        ]
        finish(server, [case for cases in killed for case in cases])

    for case, cases, (name, api) in zip(whole, killed, group, strict=True):
        check(server, case)
        figures = [check(server, each) for each in cases]
        assert all(each.death for each in cases), name
        _report(name, api, case, [each.point for each in cases], figures)


def test_many_agents_share_a_process_that_dies(server: ScriptedServer, tmp_path: Path) -> None:
    scenarios = ["sequential", "parallel", "handoffs", "agents_as_tools", "streaming", "guardrails"] * 2
    with pool("--workers", "1", "--concurrency", str(len(scenarios)), RECONCILE_INTERVAL=1.0):
        cases = [
            start(server, tmp_path / f"{number}", scenario, "chat" if number % 2 else "responses")
            for number, scenario in enumerate(scenarios)
        ]
        plan(str(cases[0].folder), "boss answered#1")
        cases[0].companions = cases[1:]
        finish(server, cases)

    for case in cases:
        assert case.death
        check(server, case)


def _report(scenario: str, api: str, whole: Case, points: list[str], figures: list[Figures]) -> None:
    order = list(dict.fromkeys(lines(str(whole.folder), "points")))
    decision = order.index(DECISION) if DECISION in order else len(order)
    legs = {
        scenario if decision == len(order) else f"{scenario}, before the decision": [],
        f"{scenario}, after the decision": [],
    }
    before, after = legs.values()
    for point, each in zip(points, figures, strict=True):
        (before if order.index(point) <= decision else after).append(each)
    for name, leg in legs.items():
        if leg:
            total = sum(leg, Figures())
            line = (
                f"| {name} | {api} | {connection.vendor} | {len(leg)} | {total.committed} | {total.committed_repeated} "
                f"| {total.in_flight} | {total.in_flight_repeated} |"
            )
            print(line)
            if TABLE:
                with open(TABLE, "a") as file:
                    file.write(f"{line}\n")
