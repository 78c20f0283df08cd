"""Plots of the figures: `python -m benchmarks.plots figures.json docs/benchmarks/`; needs matplotlib.

Deterministic SVG on a white background, readable on dark pages. Sides differ in brightness and label, not only in
hue. This project is blue, the others are grey, the best comes first.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from benchmarks.report import OWN, Report
from benchmarks.table import TITLES, number

OURS, PEERS, INK, FAINT = "#0067b1", "#757575", "#222222", "#dddddd"
STYLE = {
    "svg.hashsalt": "agentexec",  # otherwise ids are random
    "svg.fonttype": "none",  # text stays text: small files
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.edgecolor": FAINT,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
}
WIDTH = 7.2  # inches
CLAIMED = (100, 1_000, 10_000, 100_000)  # lock keys
Named = tuple[str, float]


def drain(report: Report) -> Figure | None:
    """Draw the throughput of tasks that do nothing."""
    return _bars(report, "drain", "per_second", "No-op tasks per second, 2 processes (more is better)")


def memory(report: Report) -> Figure | None:
    """Draw the memory of one more process."""
    title = "Memory of one more worker process, agents SDK loaded, MB (less is better)"
    return _bars(report, "memory", "extra_process_mb", title, is_more_better=False)


def enqueue(report: Report) -> Figure | None:
    """Draw the rates of enqueue, single and in bulk."""
    return _pairs(
        report,
        [("enqueue", "one_by_one_per_second", "one by one"), ("enqueue", "bulk_per_second", "in bulk")],
        "Enqueued per second (more is better); agentexec commits a row for each",
        is_more_better=True,
    )


def idle_latency(report: Report) -> Figure | None:
    """Draw the wait until the start of the handler."""
    return _pairs(
        report,
        [("idle_latency", "p50_ms", "median"), ("idle_latency", "p99_ms", "99th percentile")],
        "Call of enqueue to start of the handler, idle workers, ms (less is better)",
        is_more_better=False,
    )


def concurrency(report: Report) -> Figure | None:
    """Draw the number of waiting handlers that run at once."""
    return _pairs(
        report,
        [
            ("concurrency", "effective", "2 processes with 100 slots"),
            ("concurrency_500", "effective", "2 processes with 500 slots"),
        ],
        "1,000 tasks that wait 0.2 s: at once on average (more is better)",
        is_more_better=True,
    )


def recovery(report: Report) -> Figure | None:
    """Draw the time after which all tasks of a killed process are done."""
    found: list[tuple[str, float, str]] = []
    for name in report.names():
        seconds = report.median(name, "recovery", "all_done_after_s")
        limit, left = report.median(name, "recovery", "limit_s"), report.median(name, "recovery", "not_done")
        if seconds is not None:
            found.append((name, seconds, f"{number(seconds)} s"))
        elif limit is not None and left is not None:
            found.append((name, limit, f"{left:.0f} of 8 not done after {number(limit)} s"))
    if not found:
        return None
    found.sort(key=lambda item: item[1])
    figure, axes = _canvas(
        [name for name, _, _ in found], "Killed with 4 tasks in flight: all done after, s (less is better)"
    )
    axes.barh(range(len(found)), [value for _, value, _ in found], color=[_colour(name) for name, _, _ in found])
    longest = max(value for _, value, _ in found)
    for place, (_, value, label) in enumerate(found):
        is_inside = value > longest / 2
        axes.annotate(
            label,
            (value, place),
            xytext=(-4 if is_inside else 4, 0),
            textcoords="offset points",
            va="center",
            ha="right" if is_inside else "left",
            color="white" if is_inside else INK,
        )
    axes.set_xlim(0, longest * 1.1)
    return figure


def claim_cost(report: Report) -> Figure | None:
    """Draw the cost of a claim by number of lock keys, without a database."""
    name = next((name for name in report.names() if name in OWN), "")
    marks = [(count, f"{count:,}", report.median(name, "claim_cost", f"ms_at_{count}_keys")) for count in CLAIMED]
    beside = report.median(name, "claim_cost", "ms_beside_foreign_keys")
    marks.append((CLAIMED[-1] * 10, "100,000 beside\n1,000,000 of others", beside))
    known = [(count, label, value) for count, label, value in marks if value is not None]
    if not known:
        return None
    canvas: tuple[Figure, Axes] = plt.subplots(figsize=(WIDTH, 2.8), layout="constrained")
    figure, axes = canvas
    counts, labels, values = zip(*known, strict=True)
    axes.plot(counts, values, marker="o", color=OURS)
    for count, value in zip(counts, values, strict=True):
        axes.annotate(number(value), (count, value), xytext=(0, 8), textcoords="offset points", ha="center")
    axes.set_xscale("log")
    axes.set_xticks(counts, labels)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(0, max(values) * 1.4)
    axes.set_xlabel("lock keys, all but one busy")
    _dress(figure, axes, "One claim, ms (flat is good)")
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    return figure


PLOTS: dict[str, Callable[[Report], Figure | None]] = {
    plot.__name__: plot for plot in (drain, enqueue, idle_latency, concurrency, memory, recovery, claim_cost)
}


def draw(report: Report, folder: Path) -> list[Path]:
    """Write one SVG file per plot with figures."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with matplotlib.rc_context(STYLE):
        for name, plot in PLOTS.items():
            figure = plot(report)
            if figure is not None:
                if report.quick:
                    figure.text(0.99, 0.99, "a quick run: rough", ha="right", va="top", fontsize=8)
                path = folder / f"{name}.svg"
                figure.savefig(path, metadata={"Date": None, "Creator": None})
                plt.close(figure)
                written.append(path)
    return written


def _bars(report: Report, figure_name: str, key: str, title: str, is_more_better: bool = True) -> Figure | None:
    found = _sorted(report, figure_name, key, is_more_better)
    if not found:
        return None
    figure, axes = _canvas([name for name, _ in found], title)
    axes.barh(range(len(found)), [value for _, value in found], color=[_colour(name) for name, _ in found])
    for place, (_, value) in enumerate(found):
        axes.annotate(number(value), (value, place), xytext=(4, 0), textcoords="offset points", va="center")
    axes.set_xlim(0, max(value for _, value in found) * 1.12)
    return figure


def _pairs(report: Report, keys: Sequence[tuple[str, str, str]], title: str, is_more_better: bool) -> Figure | None:
    """Draw two figures of each side on one line: a disc for the first, a diamond for the second."""
    (first, second) = keys
    found = _sorted(report, first[0], first[1], is_more_better)
    if not found:
        return None
    figure, axes = _canvas([name for name, _ in found], title)
    axes.set_xscale("log")
    every: list[float] = []
    for place, (name, value) in enumerate(found):
        other = report.median(name, second[0], second[1])
        ends = [value] if other is None else [value, other]
        every += ends
        axes.plot(ends, [place] * len(ends), color=_colour(name), linewidth=2, alpha=0.5, zorder=1)
        for end, marker in zip(ends, "oD", strict=False):
            axes.scatter([end], [place], marker=marker, s=42, color=_colour(name), zorder=2)
        _label_ends(axes, ends, place)
    low, high = min(every), max(every)
    axes.set_xlim(low / (high / low) ** 0.12 / 1.1, high * (high / low) ** 0.12 * 1.1)
    for marker, (_, _, label) in zip("oD", keys, strict=True):
        axes.scatter([], [], marker=marker, s=42, color=PEERS, label=label)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0), ncols=2, frameon=False)
    return figure


def _label_ends(axes: Axes, ends: list[float], place: int) -> None:
    """Write the numbers left of the lower mark and right of the higher mark; a single number on the right."""
    for place_among, end in enumerate(sorted(ends)):
        is_left = len(ends) > place_among + 1
        axes.annotate(
            number(end),
            (end, place),
            xytext=(-7 if is_left else 7, 0),
            textcoords="offset points",
            va="center",
            ha="right" if is_left else "left",
        )


def _sorted(report: Report, figure: str, key: str, is_more_better: bool) -> list[Named]:
    medians = [(name, report.median(name, figure, key)) for name in report.names()]
    known = [(name, value) for name, value in medians if value is not None]
    return sorted(known, key=lambda pair: pair[1], reverse=is_more_better)


def _canvas(names: list[str], title: str) -> tuple[Figure, Axes]:
    figure, axes = plt.subplots(figsize=(WIDTH, 0.8 + 0.32 * len(names)), layout="constrained")
    axes.set_yticks(range(len(names)), [TITLES.get(name, name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    for label, name in zip(axes.get_yticklabels(), names, strict=True):
        label.set_color(OURS if name in OWN else INK)
        label.set_fontweight("bold" if name in OWN else "normal")
    axes.xaxis.set_visible(False)  # each value is next to its mark
    _dress(figure, axes, title)
    return figure, axes


def _dress(figure: Figure, axes: Axes, title: str) -> None:
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)


def _colour(name: str) -> str:
    return OURS if name in OWN else PEERS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    for path in draw(Report.read(options.report), options.folder):
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
