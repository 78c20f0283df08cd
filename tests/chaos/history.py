"""The history of a run for the judgment: events of the observer, rows and log lines, and leftovers."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tests.chaos.observer import Event

ENDS = ("returned", "raised", "stopped", "exits")
FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class Row:
    """An activity's row at the end."""

    agent_id: str
    name: str
    task: str
    status: str
    lock_key: str = ""
    retries: int = 0
    max_retries: int = 3
    crashes: int = 0
    fence: int = 0
    result: Any = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """A log line; `id` grows along each activity."""

    id: int
    agent_id: str
    message: str
    status: str


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault as it happened."""

    kind: str
    since: float
    until: float
    pid: int = 0
    places: tuple[int, ...] = ()
    """The numbers of the pools that a network fault has hit; the number after the last pool means the producers."""
    choice: str = ""
    number: int = -1
    """The number of the pool that was killed, frozen or replaced."""


@dataclass(frozen=True, slots=True)
class Execution:
    """One execution of a handler, as reported to the observer."""

    name: str
    agent_id: str
    key: str
    fence: int
    pid: int
    pool: int
    start: float
    end: float
    """The time when it ended or its process died; infinity if neither was reported."""
    how: str
    """A member of ENDS, or "died", or "" if it has not ended."""


@dataclass(frozen=True)
class History:
    """The whole history of a run."""

    events: Sequence[Event] = ()
    rows: Sequence[Row] = ()
    lines: Sequence[Line] = ()
    lease: float = 3.0
    max_crashes: int = 3
    max_expired_leases: int = 5
    started_message: str = "Task started."
    """The log message at the start of an attempt."""
    keys_left: Mapping[str, int] = field(default_factory=dict)
    """Seconds until each key of Redis expires; -1 if it never does."""
    queue_keys: Sequence[str] = ()
    """The keys of the queue."""
    occupied: Mapping[str, int] = field(default_factory=dict)
    """The number of activities in each place of the queue."""
    processes_left: Sequence[str] = ()
    exit_codes: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @cached_property
    def faults(self) -> list[Fault]:
        """Every fault, in order."""
        found = []
        for event in self.of("fault"):
            detail = json.loads(event.detail)
            found.append(
                Fault(
                    detail["kind"],
                    event.at,
                    detail["until"],
                    detail.get("pid", 0),
                    tuple(detail.get("places", ())),
                    detail.get("choice", ""),
                    detail.get("number", -1),
                )
            )
        return found

    @cached_property
    def rows_by_id(self) -> dict[str, Row]:
        return {row.agent_id: row for row in self.rows}

    @cached_property
    def executions(self) -> list[Execution]:
        """All executions of handlers, in the order of their starts."""
        ends: dict[tuple[str, int, int], Event] = {}
        for event in self.of(*ENDS):
            ends.setdefault((event.agent_id, event.fence, event.pid), event)
        return [_execution(start, ends, self.deaths) for start in self.of("start")]

    @cached_property
    def deaths(self) -> dict[int, float]:
        """The time when each process that ran handlers ended, by its id."""
        return {event.pid: event.at for event in self.of("gone") if event.pid}

    @cached_property
    def starts_in_log(self) -> Counter[str]:
        """The number of starts in the log of each activity, by id, including starts that did not reach the handler."""
        return Counter(line.agent_id for line in self.lines if line.message == self.started_message)

    @cached_property
    def executions_of(self) -> dict[str, list[Execution]]:
        """The executions of each activity, by id, in the order of their starts."""
        found: dict[str, list[Execution]] = defaultdict(list)
        for execution in self.executions:
            found[execution.agent_id].append(execution)
        return found

    @cached_property
    def blocks(self) -> dict[int, list[tuple[float, float]]]:
        """The times when a handler blocked the event loop of each process on purpose."""
        begun: dict[tuple[int, str, int], float] = {}
        found: dict[int, list[tuple[float, float]]] = defaultdict(list)
        for event in self.of("blocks", "unblocks"):
            place = event.pid, event.agent_id, event.fence
            if event.kind == "blocks":
                begun[place] = event.at
            else:
                found[event.pid].append((begun.pop(place, event.at), event.at))
        for (pid, _, _), since in begun.items():
            found[pid].append((since, FOREVER))
        return found

    def of(self, *kinds: str) -> Iterator[Event]:
        """Return the events of these kinds, in order."""
        return (event for event in self.events if event.kind in kinds)


def _execution(start: Event, ends: Mapping[tuple[str, int, int], Event], deaths: Mapping[int, float]) -> Execution:
    end = ends.get((start.agent_id, start.fence, start.pid))
    died = deaths.get(start.pid, FOREVER)
    at, how = (end.at, end.kind) if end else (died, "died" if died < FOREVER else "")
    return Execution(start.name, start.agent_id, start.detail, start.fence, start.pid, start.pool, start.at, at, how)
