"""Activities of durable agents that die at given points, and the checks of what they have repeated.

At its death a process is stopped. What is committed then, and what has happened, is read from outside; then the
process is killed. So a call counts as committed only if a new process finds its end in the database.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from django_agentexec.calls.paths import is_run_of
from django_agentexec.models import (
    Activity,
    AgentCall,
    Approval,
    ApprovalKind,
    CallKind,
    CallState,
    Conversation,
    ConversationItem,
    Status,
)
from django_agentexec.runners.openai.tools import MISSING_TOOL
from tests.e2e.durable_answers import FINAL, ITEMS, SCRIPTS, ScriptedServer
from tests.support.decisions import decide
from tests.support.pool_process import until
from tests.support.process_state import state_of
from tests.support.text_client import TextClient
from tests.testapp.durable import Scenario, durable_agent
from tests.testapp.kill_points import end_stopped, lines, plan, stopped_process

COMMITTED = (CallState.DONE, CallState.IN_DOUBT, CallState.REJECTED)
Place = tuple[str, str, int, str]


@dataclass
class Death:
    """The state of one activity when its process died."""

    committed: set[Place]
    requests: Counter[tuple[str, str, int]]
    effects: Counter[str]


@dataclass
class Case:
    """One activity, which dies at a point or not at all."""

    scenario: str
    folder: Path
    point: str
    agent_id: UUID
    companions: list[Case] = field(default_factory=list)
    """Activities that die with it."""
    death: Death | None = None
    follower: TextClient = field(init=False)

    def __post_init__(self) -> None:
        self.follower = TextClient(self.agent_id)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def effects(self) -> Counter[str]:
        return Counter(lines(str(self.folder), "effects"))

    @property
    def calls(self) -> list[AgentCall]:
        """The calls of models and tools."""
        calls = AgentCall.objects.of(self.agent_id).filter(kind__in=[CallKind.MODEL, CallKind.TOOL])
        return [call for call in calls if not call.name.startswith("ask_")]  # agents used as tools

    def note_death(self, server: ScriptedServer) -> None:
        """Note what has happened, and what of it is committed. The process has ended or is stopped."""
        self.death = Death(
            {call.place for call in self.calls if call.state in COMMITTED}, server.counts_of(self.name), self.effects
        )


@dataclass
class Figures:
    """What kills have cost: numbers of calls."""

    committed: int = 0
    committed_repeated: int = 0
    in_flight: int = 0
    """Calls that had happened and were not committed."""
    in_flight_repeated: int = 0

    def __add__(self, other: Figures) -> Figures:
        return Figures(
            self.committed + other.committed,
            self.committed_repeated + other.committed_repeated,
            self.in_flight + other.in_flight,
            self.in_flight_repeated + other.in_flight_repeated,
        )


def start(server: ScriptedServer, folder: Path, scenario: str, api: str, point: str = "", **options: str) -> Case:
    """Enqueue an activity that dies at `point`."""
    folder.mkdir()
    if point:
        plan(str(folder), point)
    server.scripts.setdefault(folder.name, SCRIPTS[scenario])
    if scenario in ITEMS:
        Conversation.objects.import_history(folder.name, [{"role": "user", "content": "This was before."}])
    url = server.base_url.replace("/v1", f"/v1/{folder.name}")
    context = Scenario(name=scenario, base_url=url, folder=str(folder), api=api, **options)
    return Case(scenario, folder, point, durable_agent.enqueue(context).agent_id)


def finish(server: ScriptedServer, cases: Sequence[Case]) -> None:
    """Follow the activities to their end, kill the processes that have stopped, and decide what activities ask for."""

    def has_ended() -> bool:
        for case in cases:
            case.follower.read()
            end_if_stopped(server, case)
        for approval in Approval.objects.pending():
            _decide(approval, next(case for case in cases if case.agent_id == approval.activity_id))
        return not Activity.objects.active().exists()

    until(has_ended, "the end of all activities", timeout=60 + 10 * len(cases))


def end_if_stopped(server: ScriptedServer, case: Case) -> bool:
    """Kill the process of a case that has reached its point, and note what is committed."""
    pid = stopped_process(str(case.folder))
    if pid is None or state_of(pid)[0] != "T":
        return False
    for dying in (case, *case.companions):
        dying.note_death(server)
    end_stopped(str(case.folder))
    return True


def _decide(approval: Approval, case: Case) -> None:
    if Activity.objects.get(pk=case.agent_id).is_suspended:
        is_done = approval.kind == ApprovalKind.IN_DOUBT and case.effects["send letter"]
        decide(approval, answer="letter is done" if is_done else None)


def check(server: ScriptedServer, case: Case) -> Figures:
    """Check an activity that has ended, and return what its death has cost."""
    row = Activity.objects.get(pk=case.agent_id)
    where = f"{case.scenario} killed at {case.point or 'no point'}"
    assert row.status == Status.COMPLETE, f"{where}: {row.error}"
    assert row.result == ("I have helped. I have helped." if case.scenario == "gather" else FINAL), where
    assert not AgentCall.objects.filter(activity=row, state=CallState.STARTED).exists(), where
    figures = _check_calls(server, case, where)
    assert case.follower.read() == stored_text(row), f"{where}, follower"
    assert TextClient(row.agent_id).read() == stored_text(row), f"{where}, late follower"
    assert row.usage["requests"] == sum(len(script) for script in SCRIPTS[case.scenario].values()), where
    if case.scenario in ITEMS:
        _check_items(case, where)
    return figures


def _check_calls(server: ScriptedServer, case: Case, where: str) -> Figures:
    requests, effects, figures = server.counts_of(case.name), case.effects, Figures()
    seen: set[object] = set()
    for call in case.calls:
        if call.kind == CallKind.MODEL:
            key = case.name, call.name, call.ordinal
            count, before = requests[key], case.death.requests[key] if case.death else 0
            seen.add(key)
        else:
            effect = effect_of(call)
            count, before = effects[effect], case.death.effects[effect] if case.death else 0
            seen |= {effect} & set(effects)
        what = f"{where}: {call.path} {call.name} {call.ordinal} {call.call_id} {count} times, {before} before"
        _add(figures, case, call, count, before)
        assert before <= 1, what
        if call.output == MISSING_TOOL:  # the call was in flight when a deploy removed the tool
            assert count == before, what
            continue
        assert 1 <= count <= (2 if case.death else 1), what
        assert call.kind == CallKind.MODEL or call.name != "send" or count == 1, what
    assert figures.committed_repeated == 0, f"{where}: {figures}"
    turns = {(case.name, name, turn) for name, script in SCRIPTS[case.scenario].items() for turn in range(len(script))}
    assert seen == turns | set(effects) == set(requests) | set(effects), where
    return figures


def _add(figures: Figures, case: Case, call: AgentCall, count: int, before: int) -> None:
    if case.death is None:
        return
    if call.place in case.death.committed:
        figures.committed += 1
        figures.committed_repeated += count - 1
    elif before:
        figures.in_flight += 1
        figures.in_flight_repeated += count - before


def effect_of(call: AgentCall) -> str:
    """Return the side effect of a call of a tool."""
    (value,) = dict(call.arguments or {}).values()
    return f"{call.name.removeprefix('take_')} {value}"


def stored_text(row: Activity) -> str:
    """Return the text of the recorded answers of the handler's run."""
    if row.agent_type != "durable_agent" or row.context.get("name") in ("gather", "pydantic_ai"):
        return ""  # nothing is streamed
    answers = AgentCall.objects.filter(activity=row, kind=CallKind.MODEL).order_by("ordinal")
    texts = []
    for call in answers:
        if is_run_of("", call.path):
            for item in call.output["output"]:  # type: ignore[index,call-overload]  # an answer of a model
                texts += ["".join(part["text"] for part in item.get("content", []))] if "content" in item else []
    return "\n\n".join(texts)


def _check_items(case: Case, where: str) -> None:
    """Check that the conversation has each item once, in their order."""
    items = ConversationItem.objects.filter(conversation__session_id=case.name, removed_by=None).order_by("position")
    own = [item for item in items if item.activity_id is not None]
    assert [item.item.get("role") or item.item["type"] for item in items] == ITEMS[case.scenario], where
    assert [item.key for item in own] == [f"#{number}" for number in range(len(own))], where
    assert not ConversationItem.objects.filter(conversation__session_id=case.name).exclude(removed_by=None).exists()
