"""Statistics of the activities in a time range: by task, and in bars for the charts. All read from the database."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from django.utils import timezone

from ..conf import conf
from ..ids import first_id
from ..models import ActivityQuerySet, Status
from .formatting import duration, money, percent

BARS = 60


@dataclass(frozen=True)
class Range:
    """A time range that the dashboard offers."""

    name: str
    span: timedelta


RANGES = {
    "1h": Range("1h", timedelta(hours=1)),
    "24h": Range("24h", timedelta(hours=24)),
    "7d": Range("7d", timedelta(days=7)),
    "30d": Range("30d", timedelta(days=30)),
}


class Run(NamedTuple):
    """The columns of an activity that statistics need."""

    task: str
    status: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    attempt: int
    cost: Decimal | None


@dataclass
class TaskLine:
    """The statistics of one task; texts are empty where nothing is known."""

    task: str
    runs: int = 0
    ended: int = 0
    failed: int = 0
    cost: Decimal | None = None
    """The sum of the known costs; None if none is known."""
    waits: list[float] = field(default_factory=list)
    durations: list[float] = field(default_factory=list)

    def add(self, run: Run) -> None:
        """Count a run."""
        self.runs += 1
        self.ended += run.status in (Status.COMPLETE, Status.ERROR)
        self.failed += run.status == Status.ERROR
        if run.cost is not None:
            self.cost = run.cost + (self.cost or 0)
        if run.started_at and run.attempt <= 1:
            self.waits.append(max((run.started_at - run.created_at).total_seconds(), 0.0))
        if run.started_at and run.finished_at:
            self.durations.append(max((run.finished_at - run.started_at).total_seconds(), 0.0))

    @property
    def spend(self) -> str:
        """The cost of all runs; "" if it does not apply."""
        return "" if self.cost is None else money(self.cost)

    @property
    def per_run(self) -> str:
        """The mean cost of a run; "" if it does not apply."""
        return "" if self.cost is None else money(self.cost / self.runs)

    @property
    def failure_rate(self) -> str:
        """Which share of the runs that completed or failed has failed."""
        return percent(self.failed / self.ended) if self.failed else ""

    @property
    def wait_p95(self) -> str:
        """The 95th percentile of the time from creation to start."""
        return duration(quantile(self.waits, 0.95))

    @property
    def duration_p50(self) -> str:
        """The median of the time from start to end."""
        return duration(quantile(self.durations, 0.5))

    @property
    def duration_p95(self) -> str:
        """The 95th percentile of the time from start to end."""
        return duration(quantile(self.durations, 0.95))


def recent_runs(activities: ActivityQuerySet, span: timedelta) -> tuple[list[Run], bool]:
    """Return the runs created within `span`, of the newest `COUNT_LIMIT`, and whether there are more; one query."""
    since = timezone.now() - span
    names = ("agent_type", "status", "created_at", "started_at", "finished_at", "attempt", "cost")
    rows = activities.filter(agent_id__gte=first_id(since)).order_by("-agent_id").values_list(*names)
    found = [Run(*row) for row in rows[: conf.COUNT_LIMIT + 1]]
    return found[: conf.COUNT_LIMIT], len(found) > conf.COUNT_LIMIT


def by_task(runs: Iterable[Run]) -> list[TaskLine]:
    """Return one line per task, the busiest first."""
    lines: dict[str, TaskLine] = {}
    for run in runs:
        lines.setdefault(run.task, TaskLine(run.task)).add(run)
    return sorted(lines.values(), key=lambda line: (-line.runs, line.task))


def total(lines: Sequence[TaskLine]) -> TaskLine:
    """Return the sums of all lines."""
    return TaskLine(
        "",
        runs=sum(line.runs for line in lines),
        ended=sum(line.ended for line in lines),
        failed=sum(line.failed for line in lines),
        cost=sum(costs, Decimal(0)) if (costs := [line.cost for line in lines if line.cost is not None]) else None,
    )


def bars(runs: Iterable[Run], span: timedelta) -> list[dict[str, Any]]:
    """Return `BARS` bars of equal width for the charts, the oldest first, in the shape of a monitoring minute."""
    width = span.total_seconds() / BARS
    end = timezone.now().timestamp()
    begin = end - span.total_seconds()
    counts: list[dict[str, int]] = [defaultdict(int) for _ in range(BARS)]
    waits: list[list[float]] = [[] for _ in range(BARS)]
    for run in runs:
        for moment, name in ((run.created_at, "enqueued"), (run.finished_at, run.status)):
            if (index := _index(moment, begin, width)) is not None:
                counts[index][name] += 1
        if run.attempt <= 1 and run.started_at and (index := _index(run.started_at, begin, width)) is not None:
            waits[index].append(max((run.started_at - run.created_at).total_seconds(), 0.0))
    return [
        {
            "start": datetime.fromtimestamp(begin + index * width, UTC).isoformat(),
            **{name: counts[index][name] for name in ("enqueued", "complete", "error", "canceled")},
            "wait_p50": quantile(waits[index], 0.5),
            "wait_p95": quantile(waits[index], 0.95),
        }
        for index in range(BARS)
    ]


def quantile(values: Sequence[float], share: float) -> float | None:
    """Return the value below which this share (0 to 1) of `values` lies, or None without values."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def _index(moment: datetime | None, begin: float, width: float) -> int | None:
    if moment is None:
        return None
    index = int((moment.timestamp() - begin) // width)
    return min(index, BARS - 1) if index >= 0 else None
