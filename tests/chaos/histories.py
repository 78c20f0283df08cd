"""Constructed histories, for the tests of the judgment."""

from __future__ import annotations

import json
from typing import Any

from tests.chaos.history import History, Line, Row
from tests.chaos.judgment import PROMISES
from tests.chaos.observer import Event

GOOD = Row("id-1", "p0-1", "plain", "complete", fence=5, result={"name": "p0-1", "fence": 5})
GIVEN_UP = "The worker process died 3 times while running this activity."


def event(at: float, kind: str, name: str = "p0-1", agent_id: str = "id-1", **values: Any) -> Event:
    return Event(at, kind, name, agent_id, **{"pid": 1, "pool": 0, **values})


def enqueued(name: str = "p0-1", agent_id: str = "id-1", at: float = 0.0) -> list[Event]:
    return [event(at, "offers", name, ""), event(at, "enqueued", name, agent_id)]


def ran(
    start: float, end: float, name: str = "p0-1", agent_id: str = "id-1", *, how: str = "returned", **values: Any
) -> list[Event]:
    """Return the events of one execution; `how` may be "died"."""
    values = {"fence": 5, "pid": 1, **values}
    key = values.pop("key", "")
    begun = event(start, "start", name, agent_id, detail=key, **values)
    if how == "died":
        return [begun, event(end, "gone", "", "", pid=values["pid"])]
    return [begun, event(end, how, name, agent_id, **values)]


def fault(kind: str, since: float, until: float, **values: Any) -> Event:
    return event(since, "fault", "", "", detail=json.dumps({"kind": kind, "until": until, **values}))


def line(number: int, message: str, status: str = "running") -> Line:
    return Line(number, "id-1", message, status)


def fence(number: int, of: int, step: str = "begins") -> Line:
    return line(number, f"fence={of} {step}")


COMPLETED = line(9, "Task completed successfully.", "complete")


def past(*events: list[Event] | Event, **values: Any) -> History:
    flat = [one for some in events for one in (some if isinstance(some, list) else [some])]
    return History(events=sorted(flat, key=lambda one: one.at), **values)


def healthy() -> History:
    """Return a history that keeps every promise."""
    return past(
        enqueued(),
        ran(1, 2),
        rows=[GOOD],
        lines=[line(1, "Task started."), fence(2, 5), COMPLETED],
        queue_keys=["{agentexec:default}:dead"],
        keys_left={"{agentexec:default}:dead": -1, "agentexec:count:total": 100, "agentexec:workers": -1},
        occupied={"pending": 0, "dead": 3},
        exit_codes={"the pools": [0, 0]},
    )


def findings(promise: str, history: History) -> list[str]:
    return list(PROMISES[promise](history))


def the_finding(promise: str, history: History) -> str:
    (finding,) = findings(promise, history)
    return finding
