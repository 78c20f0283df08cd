"""Durable agents in real worker processes that are killed at every point: nothing that was committed happens again.

A run without a death lists the points of a scenario. Then one activity per point dies there, once. By default some
points of each scenario are chosen; `AGENTEXEC_TEST_AGENT_KILLS=all` (`make chaos-agents`) takes all of them.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import UUID

import pytest
from redis import Redis

from django_agentexec.calls.paths import is_run_of
from django_agentexec.models import Activity, AgentCall, Approval, ApprovalKind, CallKind, CallState, Status
from tests.e2e.durable_answers import FINAL, SCRIPTS, ScriptedServer
from tests.support.decisions import decide
from tests.support.pool_process import pool, until
from tests.support.servers import Valkey
from tests.support.text_client import TextClient
from tests.testapp.durable import Scenario, durable_agent
from tests.testapp.kill_points import lines, plan

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]

ALL = os.environ.get("AGENTEXEC_TEST_AGENT_KILLS") == "all"
CHOSEN = 2  # points of each scenario in the short form
TABLE = os.environ.get("AGENTEXEC_TEST_AGENT_KILLS_TABLE")
"""A file to which each scenario appends a line."""


@dataclass
class Case:
    """One activity, which dies at a point or not at all."""

    scenario: str
    folder: Path
    point: str
    agent_id: UUID
    follower: TextClient = field(init=False)

    def __post_init__(self) -> None:
        self.follower = TextClient(self.agent_id)

    @property
    def effects(self) -> Counter[str]:
        return Counter(lines(str(self.folder), "effects"))


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as running:
        yield running


def start(server: ScriptedServer, folder: Path, scenario: str, api: str, point: str = "") -> Case:
    """Enqueue an activity that dies at `point`."""
    name = folder.name
    folder.mkdir()
    if point:
        plan(str(folder), point)
    server.scripts[name] = SCRIPTS[scenario]
    url = server.base_url.replace("/v1", f"/v1/{name}")
    handle = durable_agent.enqueue(Scenario(name=scenario, base_url=url, folder=str(folder), api=api))
    return Case(scenario, folder, point, handle.agent_id)


def finish(cases: Sequence[Case]) -> None:
    """Follow the activities to their end, and decide what they ask for."""

    def has_ended() -> bool:
        for case in cases:
            case.follower.read()
        for approval in Approval.objects.pending():
            _decide(approval, next(case for case in cases if case.agent_id == approval.activity_id))
        return not Activity.objects.active().exists()

    until(has_ended, "the end of all activities", timeout=60 + 10 * len(cases))


def _decide(approval: Approval, case: Case) -> None:
    if Activity.objects.get(pk=case.agent_id).is_suspended:
        is_done = approval.kind == ApprovalKind.IN_DOUBT and case.effects["send letter"]
        decide(approval, answer="letter is done" if is_done else None)


def check(server: ScriptedServer, case: Case) -> tuple[int, int]:
    """Check an activity that has ended; return the numbers of repeated calls of models and of tools."""
    row = Activity.objects.get(pk=case.agent_id)
    where = f"{case.scenario} killed at {case.point or 'no point'}"
    assert row.status == Status.COMPLETE, f"{where}: {row.error}"
    assert row.result == ("I have helped. I have helped." if case.scenario == "gather" else FINAL), where
    repeated_models = _check_models(server, case, where)
    repeated_tools = _check_effects(case, where)
    assert not AgentCall.objects.filter(activity=row, state=CallState.STARTED).exists(), where
    assert case.follower.read() == stored_text(row), f"{where}, follower"
    assert TextClient(row.agent_id).read() == stored_text(row), f"{where}, late follower"
    assert row.usage["requests"] == sum(len(script) for script in SCRIPTS[case.scenario].values()), where
    return repeated_models, repeated_tools


def _check_models(server: ScriptedServer, case: Case, where: str) -> int:
    repeated = 0
    for call in AgentCall.objects.filter(activity_id=case.agent_id, kind=CallKind.MODEL):
        count = server.counts[case.folder.name, call.name, call.ordinal]
        _check_count(call, count, case, where)
        repeated += count - 1
    asked = {key[1:] for key in server.counts if key[0] == case.folder.name}
    assert asked == {(name, turn) for name, script in SCRIPTS[case.scenario].items() for turn in range(len(script))}
    return repeated


def _check_effects(case: Case, where: str) -> int:
    seen = set()
    for call in AgentCall.objects.filter(activity_id=case.agent_id, kind=CallKind.TOOL):
        if not call.name.startswith("ask_"):  # an agent
            (value,) = dict(call.arguments or {}).values()
            effect = f"{call.name.removeprefix('take_')} {value}"
            _check_count(call, case.effects[effect], case, where)
            assert not effect.startswith("send") or case.effects[effect] == 1, f"{where}: {effect}"
            seen.add(effect)
    assert seen == set(case.effects), where
    return sum(case.effects.values()) - len(seen)


def _check_count(call: AgentCall, count: int, case: Case, where: str) -> None:
    """Check how often a call was made: once, or at most once more if its process died before the commit."""
    first = AgentCall.objects.filter(activity_id=case.agent_id).earliest("id").fence
    is_committed = not case.point or call.fence == first != Activity.objects.get(pk=case.agent_id).fence
    assert 1 <= count <= 2 - is_committed, f"{where}: {call.path} {call.name} {call.ordinal} {count} times"


def stored_text(row: Activity) -> str:
    """Return the text of the recorded answers of the handler's run."""
    if row.agent_type != "durable_agent" or "gather" in row.context.get("name", ""):
        return ""
    answers = AgentCall.objects.filter(activity=row, kind=CallKind.MODEL).order_by("ordinal")
    texts = []
    for call in answers:
        if is_run_of("", call.path):
            for item in call.output["output"]:  # type: ignore[index,call-overload]  # an answer of a model
                texts += ["".join(part["text"] for part in item.get("content", []))] if "content" in item else []
    return "\n\n".join(texts)


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
]
GROUPS = [[each] for each in SCENARIOS] if ALL else [SCENARIOS]
"""Scenarios that share a pool."""


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: "-".join(group[0]) if ALL else "some")
def test_killed_agents_repeat_nothing_that_was_committed(
    server: ScriptedServer, tmp_path: Path, group: list[tuple[str, str]]
) -> None:
    with pool("--workers", "2", "--concurrency", "1", RECONCILE_INTERVAL=1.0):
        whole = [start(server, tmp_path / f"{name}-{api}", name, api) for name, api in group]
        finish(whole)
        killed = [
            [
                start(server, tmp_path / f"{case.folder.name}-{number}", name, api, point)
                for number, point in enumerate(points_of(case))
            ]
            for case, (name, api) in zip(whole, group, strict=True)
        ]
        finish([case for cases in killed for case in cases])

    for case, cases, (name, api) in zip(whole, killed, group, strict=True):
        check(server, case)
        repeated = [check(server, each) for each in cases]
        assert all((each.folder / "killed").exists() for each in cases), name
        _report(name, api, cases, repeated)


def test_many_agents_share_a_process_that_dies(server: ScriptedServer, tmp_path: Path) -> None:
    scenarios = ["sequential", "parallel", "handoffs", "agents_as_tools", "streaming", "guardrails"] * 2
    with pool("--workers", "1", "--concurrency", str(len(scenarios)), RECONCILE_INTERVAL=1.0):
        cases = [
            start(server, tmp_path / f"{number}", scenario, "chat" if number % 2 else "responses")
            for number, scenario in enumerate(scenarios)
        ]
        plan(str(cases[0].folder), "boss answered#1")
        for case in cases:
            case.point = "boss answered#1 of another activity"
        finish(cases)

    assert (cases[0].folder / "killed").exists()
    for case in cases:
        check(server, case)


def test_a_stopped_pool_and_a_flushed_redis_cost_no_committed_call(
    server: ScriptedServer, tmp_path: Path, clean_valkey: Valkey
) -> None:
    thinking = threading.Event()
    first, second, last = SCRIPTS["sequential"]["boss"]
    case = start(server, tmp_path / "stopped", "sequential", "chat")
    case.point = "a stop"
    server.scripts["stopped"] = {"boss": [first, replace(second, when=thinking), last]}
    with pool("--workers", "1", GRACE_PERIOD=0.1):
        until(lambda: server.counts["stopped", "boss", 1], "the second request")
    thinking.set()
    with Redis(unix_socket_path=str(clean_valkey.socket)) as client:
        client.flushall()
    with pool("--workers", "1", RECONCILE_INTERVAL=0.5):
        finish([case])

    assert check(server, case) == (1, 0)
    assert server.counts["stopped", "boss", 0] == 1


def _report(scenario: str, api: str, cases: Sequence[Case], repeated: Sequence[tuple[int, int]]) -> None:
    models, tools = (sum(numbers) for numbers in zip(*repeated, strict=True))
    line = f"| {scenario} | {api} | {len(cases)} | 0 | {models} | {tools} |"
    print(line)
    if TABLE:
        with open(TABLE, "a") as file:
            file.write(f"{line}\n")
