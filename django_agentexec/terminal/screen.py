"""The live screen of `agentmonitor`, drawn with rich. Only this module imports it: it is an extra."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypedDict

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..models import Status
from ..schemas import ActivityListItemSchema
from .snapshot import (
    NOTHING,
    QUEUES_HEADER,
    UNKNOWN,
    WORKERS_HEADER,
    Snapshot,
    headline,
    last_known,
    queue_row,
    run_age,
    worker_row,
)
from .text import age, one_line

STYLES = {Status.RUNNING: "cyan", Status.QUEUED: "dim"}
STATES = {"alive": "green", "silent": "red", "quarantine": "yellow", UNKNOWN: "yellow"}
# Widths in cells from which a screen has room for more.
ROOM_FOR_MESSAGE, ROOM_FOR_BAR, ROOM_FOR_LONG_NAMES, ROOM_FOR_LONG_BAR = 46, 60, 80, 100
NUMBERS = ("running", "done", "failed", "pending", "delayed", "dead", "oldest", "per minute")
MAX_PROBLEMS, MAX_WORKERS, MAX_QUEUES = 4, 8, 6
FOOTER = "q quits"


class TableStyle(TypedDict):
    """What all tables have in common."""

    box: None
    pad_edge: bool
    padding: tuple[int, int, int, int]
    header_style: str


_STYLE: TableStyle = {"box": None, "pad_edge": False, "padding": (0, 2, 0, 0), "header_style": "dim"}


class LiveScreen:
    """Shows one snapshot after the other."""

    def __init__(self, live: Live, interval: float) -> None:
        self._live, self._interval = live, interval

    def show(self, snapshot: Snapshot) -> None:
        """Draw `snapshot` in the terminal's present size."""
        width, height = self._live.console.size
        self._live.update(render(snapshot, width, height, self._interval), refresh=True)


@contextmanager
def live_screen(interval: float) -> Iterator[LiveScreen]:
    """Take the terminal's second screen, and give it back in the end, whatever happens."""
    with Live(console=Console(), screen=True, auto_refresh=False) as live:
        yield LiveScreen(live, interval)


def render(snapshot: Snapshot, width: int, height: int, interval: float) -> RenderableType:
    """Return the screen: counts, problems, runs, workers and queues, in `width` x `height` cells."""
    problems = [
        Text(f"! {problem}", style="bold red", no_wrap=True, overflow="ellipsis")
        for problem in snapshot.problems[:MAX_PROBLEMS]
    ]
    if known := last_known(snapshot):
        problems.append(Text(known, style="dim", no_wrap=True, overflow="ellipsis"))
    below = [part for part in (_workers(snapshot, width), _queues(snapshot, width)) if part is not None]
    # Each table takes a line for its header and one above it; counts, a blank and the footer take three more.
    taken = 3 + len(problems) + 2 + sum(part.row_count + 2 for part in below)
    runs: RenderableType
    if snapshot.activities:
        runs = _runs(snapshot.activities, width, max(1, height - taken))
    else:
        runs = Text(NOTHING if snapshot.overview else "", style="dim")
    spaced = [part for table in (runs, *below) for part in (Text(), table)]
    footer = Text(f"{FOOTER}; every {interval:g} s", style="dim")
    return Group(
        Text(headline(snapshot), style="bold", no_wrap=True, overflow="ellipsis"), *problems, *spaced, Text(), footer
    )


def _runs(items: list[ActivityListItemSchema], width: int, rows: int) -> Table:
    table = Table(expand=True, **_STYLE)
    table.add_column("status", no_wrap=True)
    table.add_column("task", no_wrap=True, overflow="ellipsis", max_width=max(12, width // 4))
    if width >= ROOM_FOR_MESSAGE:
        table.add_column("message", no_wrap=True, overflow="ellipsis", ratio=1)
    if width >= ROOM_FOR_BAR:
        table.add_column("progress", no_wrap=True, width=20 if width >= ROOM_FOR_LONG_BAR else 8)
    table.add_column("%", justify="right", no_wrap=True)
    table.add_column("age", justify="right", no_wrap=True)
    for item in items[:rows]:
        cells: list[RenderableType] = [
            Text(item.status, style=STYLES.get(item.status, "")),
            Text(one_line(item.agent_type)),
        ]
        if width >= ROOM_FOR_MESSAGE:
            cells.append(Text(one_line(item.latest_log_message or "")))
        if width >= ROOM_FOR_BAR:
            cells.append(ProgressBar(total=100, completed=item.percentage, complete_style="cyan"))
        table.add_row(*cells, str(item.percentage), age(run_age(item)))
    return table


def _workers(snapshot: Snapshot, width: int) -> Table | None:
    workers = (snapshot.overview.workers if snapshot.overview else None) or []
    # Those who need a look first.
    rows = [worker_row(worker) for worker in sorted(workers, key=lambda worker: worker.is_alive)]
    return _small_table(WORKERS_HEADER, rows, MAX_WORKERS, width)


def _queues(snapshot: Snapshot, width: int) -> Table | None:
    queues = snapshot.overview.queues if snapshot.overview else []
    rows = [queue_row(queue) for queue in sorted(queues, key=lambda queue: -(queue.oldest_age or 0.0))]
    return _small_table(QUEUES_HEADER, rows, MAX_QUEUES, width)


def _small_table(header: list[str], rows: list[list[object]], most: int, width: int) -> Table | None:
    """Return the first `most` rows, in as many columns as there is room for; None if there are no rows."""
    if not rows:
        return None
    columns = 3 if width < ROOM_FOR_MESSAGE else 5 if width < ROOM_FOR_LONG_NAMES else len(header)
    table = Table(**_STYLE)
    for name in header[:columns]:
        table.add_column(name, no_wrap=True, overflow="ellipsis", justify="right" if name in NUMBERS else "left")
    for row in rows[:most]:
        table.add_row(*(Text(one_line(cell), style=STATES.get(str(cell), "")) for cell in row[:columns]))
    if len(rows) > most:
        table.add_row(Text(f"and {len(rows) - most} more", style="dim"))
    return table
