"""A run's report for people: the figures, and what was found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.chaos.driver import Report

MOST_FINDINGS = 20  # of one promise; the JSON has all


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
    shown = [f"  - {finding}" for finding in findings[:MOST_FINDINGS]]
    if len(findings) > MOST_FINDINGS:
        shown.append(f"  - and {len(findings) - MOST_FINDINGS} more")
    return "\n".join([f"- {promise}: " + (f"BROKEN, {len(findings)} findings" if findings else "kept"), *shown])
