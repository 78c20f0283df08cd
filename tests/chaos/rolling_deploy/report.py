"""The readable report of a rolling deploy: figures and findings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.chaos.rolling_deploy.trial import Result

MAX_FINDINGS = 20  # per promise; the JSON contains all


def as_text(result: Result) -> str:
    """Return the figures, and each promise with its findings."""
    plan = result.plan
    lines = [f"Rolling deploy from {plan.commit[:12]} on {plan.database}, seed {plan.seed}", ""]
    lines += [f"- {name}: {_figure(value)}" for name, value in result.figures.items()]
    lines.append("")
    for promise, findings in result.findings.items():
        lines.append(f"- {promise}: " + (f"BROKEN, {len(findings)} findings" if findings else "kept"))
        lines += [f"  - {finding}" for finding in findings[:MAX_FINDINGS]]
    if result.folder:
        lines += ["", f"Logs and observations: {result.folder}"]
    return "\n".join(lines)


def _figure(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {amount:,}" for name, amount in sorted(value.items()))
    return f"{value:,}"
