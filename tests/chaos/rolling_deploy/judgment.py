"""The judgment of a rolling deploy: the promises of a chaos run, and promises about two releases side by side."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tests.chaos import judgment
from tests.chaos.history import History, Row

Findings = Iterator[str]

MAY_FAIL = {"flaky", "keyed_flaky"}  # their errors are drawn; `every end fits its history` examines each
MUST_FAIL = {"failing"}
RECORD = re.compile(r"^(?=\d\d:\d\d:\d\d [A-Z]+ +\[\d+\] )", re.MULTILINE)
ALARM = re.compile(r"^\d\d:\d\d:\d\d (?:ERROR|CRITICAL) |^Traceback |^Producer ", re.MULTILINE)
PLANNED = " fails as planned"
DEATH = re.compile(r" Worker process \S+ \((\d+)\) ended ")


@dataclass(frozen=True)
class Tick:
    """One due time of the schedule."""

    due: float
    kind: str
    agent_id: str
    status: str


@dataclass(frozen=True)
class Deploy:
    """What a rolling deploy has left behind, beside the history of its activities."""

    history: History
    parents: Mapping[str, str] = field(default_factory=dict)
    """The id of the parent of each child, by the child's id."""
    effects: Sequence[str] = ()
    """The lines that handlers appended: id, fence and name."""
    ticks: Sequence[Tick] = ()
    unscheduled: Sequence[str] = ()
    """Activities of the scheduled task without a due time."""
    logs: Mapping[str, str] = field(default_factory=dict)
    """The output of each process, by its name."""


def every_task_ends_as_expected(deploy: Deploy) -> Findings:
    """Each activity is `complete` or, by its task, in `error`; unless it, or its parent, was canceled. A repairable
    activity is complete if it was retried."""
    history = deploy.history
    retried = {event.agent_id for event in history.of("retried", "retry_refused")}
    canceled = {event.agent_id for event in history.of("cancels")}
    for row in history.rows:
        expected = {"complete"}
        if row.task in MAY_FAIL:
            expected = {"complete", "error"}
        elif row.task in MUST_FAIL or (row.task == "repairable" and row.agent_id not in retried):
            expected = {"error"}
        if row.agent_id in canceled:
            expected.add("canceled")
        if row.status not in expected:
            wanted = " or ".join(sorted(expected))
            yield f"{row.name} ({row.agent_id}, {row.task}) is {row.status}, not {wanted}: {row.error}"


def no_result_twice(deploy: Deploy) -> Findings:
    """A completed activity has the effect of the fence in its row, once. A further effect belongs to an execution whose
    result could not be written, since its process ended, or since the activity was canceled."""
    by_id: dict[str, list[int]] = defaultdict(list)
    for line in deploy.effects:
        agent_id, fence, _ = line.split(" ", 2)
        by_id[agent_id].append(int(fence))
    for row in deploy.history.rows:
        fences = by_id[row.agent_id]
        for fence, count in Counter(fences).items():
            if count > 1:
                yield f"{row.name} ({row.agent_id}) has {count} effects of fence {fence}"
        if row.status == "complete" and row.fence not in fences:
            yield f"{row.name} ({row.agent_id}) is complete with fence {row.fence}, and has effects of {fences}"
        if row.status == "canceled":
            continue
        for fence in set(fences) - {row.fence}:
            if not _has_ended(deploy.history, row, fence):
                yield f"{row.name} ({row.agent_id}, fence {row.fence}) has an effect of fence {fence}, which lives on"


def _has_ended(history: History, row: Row, fence: int) -> bool:
    """Return whether the process of this execution ended before the next execution began."""
    executions = history.executions_of.get(row.agent_id, [])
    later = min((e.start for e in executions if e.fence > fence), default=float("inf"))
    return any(e.fence == fence and history.deaths.get(e.pid, float("inf")) < later for e in executions)


def steps_advance(deploy: Deploy) -> Findings:
    """In a pipeline, no step begins after a later step has begun, in whichever release."""
    newest: dict[str, int] = {}
    for event in deploy.history.of("step"):
        position = int(event.detail)
        if position < newest.get(event.agent_id, 0):
            yield f"{event.name} ({event.agent_id}): step {position} began after step {newest[event.agent_id]}"
        newest[event.agent_id] = max(position, newest.get(event.agent_id, 0))


def a_due_time_runs_once(deploy: Deploy) -> Findings:
    """Each due time has one run or was skipped, each run is complete, and each run has a due time."""
    yield from (f"activity {agent_id} was enqueued by no due time" for agent_id in deploy.unscheduled)
    if not deploy.ticks:
        yield "the schedule was never due"
    ids = Counter(tick.agent_id for tick in deploy.ticks if tick.agent_id)
    yield from (f"activity {agent_id} has {count} due times" for agent_id, count in ids.items() if count > 1)
    for tick in deploy.ticks:
        if tick.kind != "skipped" and tick.status != "complete":
            yield f"the run of {tick.due:.0f} ({tick.kind}, {tick.agent_id}) is {tick.status or 'missing'}"
    due = [tick.due for tick in deploy.ticks]
    yield from (f"{time:.3f} was due {count} times" for time, count in Counter(due).items() if count > 1)


def logs_are_quiet(deploy: Deploy) -> Findings:
    """No process of either release has logged an error, other than a planned error and the death of a killed worker."""
    killed = {fault.pid for fault in deploy.history.faults if fault.kind == "kill_worker"}
    for name, output in deploy.logs.items():
        for record in RECORD.split(output):
            death = DEATH.search(record)
            is_excused = PLANNED in record or (death and int(death[1]) in killed)
            if ALARM.search(record) and not is_excused:
                yield f"{name}: {record.strip()}"


def both_releases_work(deploy: Deploy, pools: Mapping[str, Iterable[int]], numbers: Mapping[str, range]) -> Findings:
    """Each release executed activities of the producers of both releases."""
    producer_of = {event.agent_id: event.pool for event in deploy.history.of("enqueued")}
    seen = {
        (releases_of(producer_of[e.agent_id], numbers), releases_of(e.pool, pools))
        for e in deploy.history.executions
        if e.agent_id in producer_of
    }
    for producer in numbers:
        for pool in pools:
            if (producer, pool) not in seen:
                yield f"no pool of the {pool} release has executed an activity of a producer of the {producer} release"


def releases_of(number: int, numbers: Mapping[str, Iterable[int]]) -> str:
    """Return the release to which the process of this number belongs."""
    return next(name for name, owned in numbers.items() if number in owned)


def with_cancels_of_children(history: History, parents: Mapping[str, str]) -> History:
    """Return the history with a cancel of each child of a canceled parent: they are canceled together."""
    requests = {event.agent_id: event for event in history.of("cancels")}
    added = []
    for child, parent in parents.items():
        if request := requests.get(parent):
            added.append(replace(request, agent_id=child, name=""))
    return replace(history, events=[*history.events, *added])


def without_shared_keys(history: History) -> History:
    """Return the history without the lock keys that several processes use: these have no order."""
    return replace(history, events=[e for e in history.events if not e.detail.startswith("shared")])


OF_CHAOS: dict[str, judgment.Judge] = {
    name: check
    for name, check in judgment.PROMISES.items()
    if name not in ("poison ends, and its neighbours do not", "a key keeps its order")
}
PROMISES: dict[str, Callable[[Deploy], Findings]] = {
    "every task ends as expected": every_task_ends_as_expected,
    "no result twice": no_result_twice,
    "a finished step does not run again": steps_advance,
    "a due time runs once": a_due_time_runs_once,
    "logs are quiet": logs_are_quiet,
}


def judge(deploy: Deploy) -> dict[str, list[str]]:
    """Return the findings of each promise."""
    deploy = replace(deploy, history=with_cancels_of_children(deploy.history, deploy.parents))
    return {
        **{name: list(check(deploy.history)) for name, check in OF_CHAOS.items()},
        "a key keeps its order": list(judgment.a_key_keeps_its_order(without_shared_keys(deploy.history))),
        **{name: list(check(deploy)) for name, check in PROMISES.items()},
    }
