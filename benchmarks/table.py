"""The table of the figures, and the page of the documentation that contains it.

Run as a module, it generates the page from a report: `python -m benchmarks.table FILE.json`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.report import OWN, Report

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
PLOTS = ROOT / "docs" / "benchmarks"
DATA = PLOTS / "figures.json"
NONE = "-"
TITLES = {"sqlite": "agentexec, SQLite", "postgresql": "agentexec, PostgreSQL"}


@dataclass(frozen=True)
class Row:
    """One figure: its label, its place in the report, and whether high or low values are good."""

    title: str
    figure: str
    key: str
    best: Literal["low", "high"]


COMPARED = (
    Row("idle latency, p50, ms", "idle_latency", "p50_ms", "low"),
    Row("idle latency, p99, ms", "idle_latency", "p99_ms", "low"),
    Row("1,000 x 0.2 s on 2 x 100 slots, at once on average", "concurrency", "effective", "high"),
    Row("1,000 x 0.2 s on 2 x 500 slots, at once on average", "concurrency_500", "effective", "high"),
    Row("drain of no-op tasks, per s", "drain", "per_second", "high"),
    Row("drain of 1,000 lock keys with 5 tasks each, per s", "keyed_drain", "per_second", "high"),
    Row("of those keys, served out of order", "keyed_drain", "keys_out_of_order", "low"),
    Row("enqueue one by one, per s", "enqueue", "one_by_one_per_second", "high"),
    Row("enqueue in bulk, per s", "enqueue", "bulk_per_second", "high"),
    Row("enqueue of ids alone, one by one, per s", "enqueue", "one_by_one_without_row_per_second", "high"),
    Row("enqueue of ids alone, in bulk, per s", "enqueue", "bulk_without_row_per_second", "high"),
    Row("Redis commands per s when idle", "idle_commands", "per_second", "low"),
    Row("memory of one more process, MB", "memory", "extra_process_mb", "low"),
    Row("killed with 4 tasks in flight: not done at the end", "recovery", "not_done", "low"),
    Row("killed with 4 tasks in flight: all done after, s", "recovery", "all_done_after_s", "low"),
)
OURS = (
    Row("one claim, all but one of 100 lock keys busy, ms", "claim_cost", "ms_at_100_keys", "low"),
    Row("the same with 1,000 keys, ms", "claim_cost", "ms_at_1000_keys", "low"),
    Row("the same with 10,000 keys, ms", "claim_cost", "ms_at_10000_keys", "low"),
    Row("the same with 100,000 keys, ms", "claim_cost", "ms_at_100000_keys", "low"),
    Row("and with 1,000,000 keys of others in the same Redis, ms", "claim_cost", "ms_beside_foreign_keys", "low"),
    Row("queue layer alone, claim and finish, per s", "queue_layer", "per_second", "high"),
    Row("cancel, from the call to the `CancelledError`, p50, ms", "cancel_latency", "p50_ms", "low"),
    Row("a change at 500 websockets, p50, ms", "websocket_fanout", "p50_ms", "low"),
    Row("a change at 500 websockets, p99, ms", "websocket_fanout", "p99_ms", "low"),
    Row("first page of the REST list, 1,000,000 rows, in the database, ms", "list_million", "all_page_ms", "low"),
    Row("its bounded count, ms", "list_million", "all_count_ms", "low"),
)
COUNTS = {"not_done", "keys_out_of_order"}
# Not compared: enqueueing only ids, which peers cannot do, and counts of errors, which are no matter of degree.
WITHOUT_RATIO = {"one_by_one_without_row_per_second", "bulk_without_row_per_second", *COUNTS}


def number(value: float) -> str:
    """Return a number with its significant digits."""
    if value >= 100:
        rounded = round(value, 1 - len(str(int(value))) + 2) if value >= 10_000 else round(value)
        return f"{rounded:,.0f}"
    if value == 0 or (value >= 10 and value == round(value)):
        return f"{value:.0f}"
    return f"{value:.0f}" if value >= 30 else f"{value:.1f}" if value >= 2 else f"{value:.2f}"


def cell(report: Report, side: str, row: Row) -> str:
    """Return the cell of a side."""
    value = report.median(side, row.figure, row.key)
    if value is not None:
        return f"{value:g}" if row.key in COUNTS else number(value)
    if None in report.sides.get(side, {}).get(row.figure, {}).get(row.key, []):
        return f"> {number(report.median(side, row.figure, 'limit_s') or 0)}"
    return NONE


def best_peer(report: Report, row: Row) -> tuple[str, float] | None:
    """Return the peer with the best median, and the median."""
    found = [(name, report.median(name, row.figure, row.key)) for name in report.names() if name not in OWN]
    known = [(name, value) for name, value in found if value is not None]
    choose: Callable[..., tuple[str, float]] = max if row.best == "high" else min
    return choose(known, key=lambda pair: pair[1]) if known else None


def ratio(report: Report, row: Row) -> str:
    """Return the figures of this project divided by those of the best peer, and the name of the peer."""
    best = best_peer(report, row)
    if best is None or best[1] == 0 or row.key in WITHOUT_RATIO:
        return NONE
    own = [report.median(name, row.figure, row.key) for name in report.names() if name in OWN]
    shown = [f"{value / best[1]:.2f}" for value in own if value is not None]
    return f"{' and '.join(shown)} of {best[0]}" if shown else NONE


def markdown(report: Report) -> str:
    """Return the generated part of the page: machine, versions, tables and the settings of peers."""
    names = report.names()
    parts = [_conditions(report)]
    parts.append(
        _table(
            ["figure", *(TITLES.get(name, name) for name in names), "ours to the best peer's"],
            [[row.title, *(cell(report, name, row) for name in names), ratio(report, row)] for row in COMPARED],
        )
    )
    own = [name for name in names if name in OWN]
    if own:
        parts.append(
            _table(
                ["figure of this project alone", *(TITLES[name] for name in own)],
                [[row.title, *(cell(report, name, row) for name in own)] for row in OURS],
            )
        )
    if report.peers:
        parts.append(_settings(report))
    return "\n\n".join(parts)


def _conditions(report: Report) -> str:
    machine, server = report.machine, next(iter(report.versions.items()))
    text = (
        f"Medians of {report.runs} {'run' if report.runs == 1 else 'runs'} on {report.at[:10]}: {machine['processor']},"
        f" {machine['cores']} cores, {machine['memory_gb']} GB, Linux {machine['kernel']}, Python {machine['python']},"
        f" load before {machine['load_before']}; {' '.join(server)};"
        f" {', '.join(f'{name} {number}' for name, number in list(report.versions.items())[1:])}."
    )
    if report.quick:
        text += " **A quick run: these figures are rough.**"
    if report.failures:
        text += f" Not measured, as it failed: {', '.join(sorted(set(report.failures)))}."
    return text


def _settings(report: Report) -> str:
    rows = []
    for name, description in report.peers.items():
        told, versions = description["settings"], description["versions"]
        rows.append(
            [
                f"{name} {versions.get(name, '')}",
                ", ".join(f"{package} {value}" for package, value in versions.items() if package != name),
                *(told.get(purpose, NONE) for purpose in ("calls", "waits", "kills")),
            ]
        )
    header = ["peer", "with", "enqueue, latency, drain, idle, memory", "tasks that wait", "kill"]
    return _table(header, rows)


def _table(header: list[str], rows: list[list[str]]) -> str:
    shown = [row for row in rows if any(cell not in ("", NONE) for cell in row[1:])]
    lines = [header, ["---"] * len(header), *shown]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page(report: Report, text: str) -> str:
    """Return the page with its generated part, between the markers, replaced."""
    marked = re.compile(r"(<!-- figures -->\n).*?(<!-- end of the figures -->)", re.DOTALL)
    if not marked.search(text):
        raise ValueError("The page has no markers <!-- figures --> and <!-- end of the figures -->.")
    return marked.sub(lambda match: f"{match[1]}{markdown(report)}\n{match[2]}", text)


def publish(report: Report) -> None:
    """Write the report and the page into the documentation."""
    PLOTS.mkdir(exist_ok=True)
    DATA.write_text(report.to_json())
    PAGE.write_text(page(report, PAGE.read_text()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path)
    publish(Report.read(parser.parse_args().report))


if __name__ == "__main__":
    main()
