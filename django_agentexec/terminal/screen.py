"""The live screen of `agentexec monitor`, drawn with rich. No other module imports rich, which is an extra."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypedDict

from django.utils.translation import gettext as _
from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..models import Status
from ..schemas import ActivityListItemSchema
from .snapshot import (
    ALIVE,
    NOTHING_ACTIVE,
    QUARANTINE,
    QUEUES,
    RUNS,
    SILENT,
    UNKNOWN,
    WORKERS,
    Columns,
    Snapshot,
    headline,
    last_known,
    queue_row,
    run_age,
    worker_row,
)
from .text import one_line, status_text
from .times import time_span

STATUS_STYLES = {Status.RUNNING: "cyan", Status.QUEUED: "dim"}
STATE_STYLES = ((ALIVE, "green"), (SILENT, "red"), (QUARANTINE, "yellow"), (UNKNOWN, "yellow"))
# Screen widths in cells from which a part is shown.
MIN_WIDTH_MESSAGE, MIN_WIDTH_BAR, MIN_WIDTH_ALL_COLUMNS, MIN_WIDTH_LONG_BAR = 46, 60, 80, 100
MAX_PROBLEMS, MAX_WORKERS, MAX_QUEUES = 4, 8, 6


class TableStyle(TypedDict):
    """The style of all tables."""

    box: None
    pad_edge: bool
    padding: tuple[int, int, int, int]
    header_style: str


_STYLE: TableStyle = {"box": None, "pad_edge": False, "padding": (0, 2, 0, 0), "header_style": "dim"}


class LiveScreen:
    """The screen, which shows the latest snapshot."""

    def __init__(self, live: Live, interval: float) -> None:
        self._live, self._interval = live, interval

    def show(self, snapshot: Snapshot) -> None:
        """Draw `snapshot` in the present size of the terminal."""
        width, height = self._live.console.size
        self._live.update(render(snapshot, width, height, self._interval), refresh=True)


@contextmanager
def live_screen(interval: float) -> Iterator[LiveScreen]:
    """Use the alternate screen of the terminal inside the block, and restore the terminal afterwards."""
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
    # Each table has a header line and a blank line above it; counts, a blank line and the footer take three more.
    taken = 3 + len(problems) + 2 + sum(part.row_count + 2 for part in below)
    runs: RenderableType
    if snapshot.activities:
        runs = _runs(snapshot.activities, width, max(1, height - taken))
    else:
        runs = Text(str(NOTHING_ACTIVE) if snapshot.overview else "", style="dim")
    spaced = [part for table in (runs, *below) for part in (Text(), table)]
    footer = Text(_("q quits; every %(seconds)s s") % {"seconds": f"{interval:g}"}, style="dim")
    counts = Text(headline(snapshot), style="bold", no_wrap=True, overflow="ellipsis")
    return Group(counts, *problems, *spaced, Text(), footer)


def _runs(items: list[ActivityListItemSchema], width: int, rows: int) -> Table:
    status, task, percentage, age, message = RUNS.titles()
    table = Table(expand=True, **_STYLE)
    table.add_column(status, no_wrap=True)
    table.add_column(task, no_wrap=True, overflow="ellipsis", max_width=max(12, width // 4))
    if width >= MIN_WIDTH_MESSAGE:
        table.add_column(message, no_wrap=True, overflow="ellipsis", ratio=1)
    if width >= MIN_WIDTH_BAR:
        table.add_column(_("progress"), no_wrap=True, width=20 if width >= MIN_WIDTH_LONG_BAR else 8)
    table.add_column(percentage, justify="right", no_wrap=True)
    table.add_column(age, justify="right", no_wrap=True)
    for item in items[:rows]:
        cells: list[RenderableType] = [
            Text(status_text(item), style=STATUS_STYLES.get(item.status, "")),
            Text(one_line(item.agent_type)),
        ]
        if width >= MIN_WIDTH_MESSAGE:
            cells.append(Text(one_line(item.latest_log_message or "")))
        if width >= MIN_WIDTH_BAR:
            cells.append(ProgressBar(total=100, completed=item.percentage, complete_style="cyan"))
        table.add_row(*cells, str(item.percentage), time_span(run_age(item)))
    return table


def _workers(snapshot: Snapshot, width: int) -> Table | None:
    workers = (snapshot.overview.workers if snapshot.overview else None) or []
    # Silent workers first.
    rows = [worker_row(worker) for worker in sorted(workers, key=lambda worker: worker.is_alive)]
    return _small_table(WORKERS, rows, MAX_WORKERS, width)


def _queues(snapshot: Snapshot, width: int) -> Table | None:
    queues = snapshot.overview.queues if snapshot.overview else []
    rows = [queue_row(queue) for queue in sorted(queues, key=lambda queue: -(queue.oldest_age or 0.0))]
    return _small_table(QUEUES, rows, MAX_QUEUES, width)


def _small_table(columns: Columns, rows: list[list[object]], max_rows: int, width: int) -> Table | None:
    """Return the first `max_rows` rows, in as many columns as fit; None if there are no rows."""
    if not rows:
        return None
    titles = columns.titles()
    shown = 3 if width < MIN_WIDTH_MESSAGE else 5 if width < MIN_WIDTH_ALL_COLUMNS else len(titles)
    table = Table(**_STYLE)
    for index, title in enumerate(titles[:shown]):
        justify: JustifyMethod = "right" if index in columns.right else "left"
        table.add_column(title, no_wrap=True, overflow="ellipsis", justify=justify)
    for row in rows[:max_rows]:
        table.add_row(*(Text(one_line(cell), style=_style(cell)) for cell in row[:shown]))
    if len(rows) > max_rows:
        table.add_row(Text(_("and %(count)s more") % {"count": len(rows) - max_rows}, style="dim"))
    return table


def _style(cell: object) -> str:
    return next((style for label, style in STATE_STYLES if cell == label), "")
