"""The table and the plots of the benchmarks are made from the figures, and the documentation shows them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import table
from benchmarks.report import Report


@pytest.fixture
def report() -> Report:
    """Three runs of this project and of two peers."""
    made = Report(
        at="2026-01-31T12:00:00+00:00",
        runs=3,
        quick=False,
        machine={
            "processor": "Some CPU",
            "cores": 2,
            "memory_gb": 8.0,
            "kernel": "6.1",
            "python": "3.11.7",
            "load_before": 0.1,
        },
        versions={"valkey": "9.0", "django": "5.2"},
    )
    for name, drains in {
        "sqlite": (1, 900, 1_000),
        "postgresql": (500,) * 3,
        "rq": (100,) * 3,
        "huey": (3_000,) * 3,
    }.items():
        for drain in drains:
            made.add(name, "drain", {"per_second": drain})
            made.add(name, "enqueue", {"one_by_one_per_second": drain * 2})
            made.add(name, "idle_latency", {"p50_ms": 1_000 / drain, "p99_ms": 3_000 / drain})
            made.add(name, "concurrency", {"effective": drain / 10})
            made.add(name, "memory", {"extra_process_mb": 20})
    for name in ("sqlite", "postgresql"):
        made.add(name, "claim_cost", {"ms_at_100_keys": 0.3, "ms_at_100000_keys": 0.31})
        made.add(name, "recovery", {"not_done": 0, "all_done_after_s": 1.0})
    made.add("huey", "recovery", {"not_done": 4, "limit_s": 90, "all_done_after_s": None})
    for peer in ("rq", "huey"):
        made.describe(peer, {"settings": {"calls": f"as {peer} says"}, "versions": {peer: "1.2"}})
    return made


def line(text: str, start: str) -> list[str]:
    """Return the cells of the table's line that begins so."""
    found = next(line for line in text.splitlines() if line.startswith(f"| {start}"))
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_a_line_has_the_medians_and_the_ratio_to_the_best_peer(report: Report) -> None:
    assert line(table.markdown(report), "drain of no-op")[1:] == ["900", "500", "100", "3,000", "0.30 and 0.17 of huey"]


def test_where_less_is_better_the_lowest_peer_is_the_best(report: Report) -> None:
    assert line(table.markdown(report), "idle latency, p50")[-1] == "3.33 and 6.00 of huey"


def test_a_limit_that_was_reached_is_no_figure(report: Report) -> None:
    cells = line(table.markdown(report), "killed with 4 tasks in flight: all done after")
    assert cells[1:] == ["1.00", "1.00", "-", "> 90", "-"]


def test_a_reached_limit_is_waited_for_only_once(report: Report) -> None:
    assert report.is_known("huey", "recovery")
    assert not report.is_known("sqlite", "recovery")


def test_what_nobody_measured_is_left_out(report: Report) -> None:
    assert "bulk" not in table.markdown(report)


def test_what_failed_and_what_is_rough_is_said(report: Report) -> None:
    report.failures.append("rq memory")
    report.quick = True
    assert "as it failed: rq memory." in table.markdown(report)
    assert "these figures are rough" in table.markdown(report)


def test_settings_and_versions_are_told(report: Report) -> None:
    assert line(table.markdown(report), "rq 1.2")[2] == "as rq says"


def test_a_report_is_read_as_it_was_written(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(report.to_json())
    assert Report.read(path) == report


def test_a_page_keeps_what_is_outside_its_markers(report: Report) -> None:
    made = table.page(report, "before\n<!-- figures -->\nold\n<!-- end of the figures -->\nafter\n")
    assert made == f"before\n<!-- figures -->\n{table.markdown(report)}\n<!-- end of the figures -->\nafter\n"


def test_an_empty_page_is_filled(report: Report) -> None:
    made = table.page(report, "<!-- figures -->\n<!-- end of the figures -->\n")
    assert (
        made == table.page(report, made) == f"<!-- figures -->\n{table.markdown(report)}\n<!-- end of the figures -->\n"
    )


def test_a_page_without_markers_is_refused(report: Report) -> None:
    with pytest.raises(ValueError, match="no markers"):
        table.page(report, "nothing")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (0.3712, "0.37"),
        (2.345, "2.3"),
        (12.0, "12"),
        (29.94, "29.9"),
        (158.4, "158"),
        (2_443.6, "2,444"),
        (16_234, "16,200"),
    ],
)
def test_numbers_have_the_digits_that_they_are_worth(value: float, shown: str) -> None:
    assert table.number(value) == shown


def test_the_page_shows_the_committed_figures() -> None:
    text = table.PAGE.read_text()
    assert table.page(Report.read(table.DATA), text) == text


def test_plots_are_small_and_the_same_each_time(report: Report, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from benchmarks import plots

    first = {path.name: path.read_bytes() for path in plots.draw(report, tmp_path / "1")}
    second = {path.name: path.read_bytes() for path in plots.draw(report, tmp_path / "2")}
    assert first == second
    assert set(first) == {f"{name}.svg" for name in plots.PLOTS}
    assert max(map(len, first.values())) < 60_000
    assert b"agentexec, SQLite" in first["drain.svg"]
    assert not re.search(rb"<dc:date>", first["drain.svg"])


def test_nothing_is_drawn_without_figures(report: Report, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from benchmarks import plots

    report.sides = {"sqlite": {"drain": {"per_second": [1.0]}}}
    assert [path.name for path in plots.draw(report, tmp_path)] == ["drain.svg"]
