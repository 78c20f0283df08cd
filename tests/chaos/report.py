"""The readable report of a run: figures and findings."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.chaos.driver import Report

ENDS = ("complete", "error", "canceled")
MAX_FINDINGS = 20  # per promise; the JSON contains all


def as_markdown(report: Report) -> str:
    """Return the report as Markdown."""
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    parts = [
        f"# Chaos: {report.form.name} form on {report.form.database}, seed {report.seed}",
        f"{versions}.",
        _table("seconds", report.seconds),
        _table("faults", report.faults),
        _table("faults without a victim", report.skipped),
        _table("activities", report.activities),
        _table("observed", report.observed),
        "Exit codes of pools: "
        + "; ".join(f"{what} {codes}" for what, codes in report.pools.items())
        + f". Workers replaced for their memory: {report.recycled}.",
        "\n".join(_verdict(promise, findings) for promise, findings in report.findings.items()),
    ]
    if report.folder:
        parts.append(f"Logs and observations: `{report.folder}`")
    return "\n\n".join(parts)


def _table(title: str, values: Mapping[str, float]) -> str:
    rows = "\n".join(f"| {name} | {value:,} |" for name, value in sorted(values.items()))
    return f"| {title} | |\n|---|---|\n{rows}"


def _verdict(promise: str, findings: list[str]) -> str:
    shown = [f"  - {finding}" for finding in findings[:MAX_FINDINGS]]
    if len(findings) > MAX_FINDINGS:
        shown.append(f"  - and {len(findings) - MAX_FINDINGS} more")
    return "\n".join([f"- {promise}: " + (f"BROKEN, {len(findings)} findings" if findings else "kept"), *shown])


BEGIN, END = "<!-- chaos -->", "<!-- end of chaos -->"


def as_summary(report: Mapping[str, Any], date: str) -> str:
    """Return the summary of a run for the documentation, from its JSON."""
    activities = dict(report["activities"])
    ends = {end: sum(n for name, n in activities.items() if name.endswith(f" {end}")) for end in ENDS}
    faults = ", ".join(f"{count} x {name.replace('_', ' ')}" for name, count in sorted(report["faults"].items()))
    form, seconds, observed = report["form"], report["seconds"], report["observed"]
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    verdicts = [f"| {name} | {len(found) or 'none'} |" for name, found in report["findings"].items()]
    texts = (
        f"A {form['name']} run of {date}: seed {report['seed']}, {form['database']}; {versions}.",
        f"{activities['all']:,} activities ({', '.join(f'{count:,} {end}' for end, count in ends.items())}),"
        f" {observed['start']:,} starts of handlers, {observed['undone']:,} enqueues rolled back;"
        f" {sum(report['faults'].values())} faults in {seconds['faults']:,.0f} s ({faults});"
        f" {seconds['healing']:,.0f} s from the last fault to the last end.",
    )
    wrapped = [textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False) for text in texts]
    return "\n".join([*(f"{text}\n" for text in wrapped), "| promise | findings |", "| --- | --- |", *verdicts])


def main() -> None:
    """Write the summaries of reports into a page: `python -m tests.chaos.report 1.json 2.json docs/guarantees.md`."""
    *sources, page = map(Path, sys.argv[1:])
    before, rest = page.read_text().split(BEGIN)
    summaries = [as_summary(json.loads(source.read_text()), _date_of(source)) for source in sources]
    page.write_text(f"{before}{BEGIN}\n" + "\n\n".join(summaries) + f"\n{END}{rest.split(END)[1]}")


def _date_of(source: Path) -> str:
    return datetime.fromtimestamp(source.stat().st_mtime, UTC).strftime("%Y-%m-%d")


if __name__ == "__main__":
    main()
