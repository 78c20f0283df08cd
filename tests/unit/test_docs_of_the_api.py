"""The pages on REST and permissions name all parameters, checks, metrics and permissions of the code."""

from __future__ import annotations

import inspect
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from django_agentexec.api.filters import ActivityFilter
from django_agentexec.models import WaitingFor
from django_agentexec.monitoring.health import LIMITS_PROBE, PROBES
from django_agentexec.policy import Permission, Policy

ROOT = Path(__file__).resolve().parents[2]
API = (ROOT / "docs" / "api.md").read_text()
POLICY = (ROOT / "docs" / "policy.md").read_text()


def section(page: str, title: str) -> str:
    """Return the text of a section, with its subsections."""
    return page.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def first_cells(text: str) -> set[str]:
    """Return the names in code style in the first column of the tables."""
    rows = re.findall(r"^\| (`.*?`) \|", text, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def exported_metrics() -> set[str]:
    """Return the metrics that the code exports, as Prometheus names them."""
    source = (ROOT / "django_agentexec" / "api" / "metrics.py").read_text()
    gauges = set(re.findall(r'MetricFamily\(\s*"(agentexec_\w+)"', source))
    counters = {f"agentexec_{name}_total" for name in re.findall(r'_counter\("(\w+)"', source)}
    return gauges | counters | {f"agentexec_{name}" for name in re.findall(r'_histogram\("(\w+)"', source)}


def test_the_parameters_of_the_list_are_documented() -> None:
    documented = first_cells(section(API, "List"))

    assert documented == {*ActivityFilter.base_filters, "page", "page_size", "metadata.<key>"}


def test_the_metrics_are_documented() -> None:
    metrics = {name for name in first_cells(section(API, "Health and metrics")) if name.startswith("agentexec_")}

    assert metrics == exported_metrics()


def test_the_health_checks_are_documented() -> None:
    probes = {probe.name for probe in (*PROBES, LIMITS_PROBE)}

    assert {name for name in first_cells(section(API, "Health and metrics")) if "agentexec_" not in name} == probes


def test_the_permissions_are_documented() -> None:
    named = {name.removeprefix("agentexec.") for name in first_cells(POLICY)}

    assert named == {*Permission, "delete_activity"}


def test_the_methods_of_a_policy_are_documented() -> None:
    methods = {name for name, _ in inspect.getmembers(Policy, inspect.isfunction) if not name.startswith("_")}

    assert {name for name in methods if f"`{name}(" not in section(POLICY, "Write a policy")} == set()


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js to read JavaScript")
@pytest.mark.parametrize("page", ["api.md", "live.md", "tutorial.md"])
def test_the_scripts_of_a_page_parse(page: str, tmp_path: Path) -> None:
    text = (ROOT / "docs" / page).read_text()
    scripts = re.findall(r"^```(?:js|javascript)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    scripts += re.findall(r"<script>\n(.*?)</script>", text, re.DOTALL)
    file = tmp_path / "page.mjs"
    file.write_text("\n".join(f"{{\n{script}\n}}" for script in scripts))

    assert scripts
    subprocess.run(["node", "--check", file], check=True)


def test_each_reason_to_wait_has_a_remedy() -> None:
    troubleshooting = (ROOT / "docs" / "troubleshooting.md").read_text()
    row = next(line for line in section(API, "List").splitlines() if line.startswith("| `waiting_for`"))

    assert set(re.findall(r"`(\w+)`", row)) == {"waiting_for", *WaitingFor.values}
    causes = section(troubleshooting, "An activity stays `running`").lower()
    assert {reason for reason in {*WaitingFor.values} - {"event"} if reason not in causes} == set()
    for scope in ("paused", "concurrency limit", "rate limit"):
        assert scope in section(troubleshooting, "An activity stays `queued`")
