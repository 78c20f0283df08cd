"""The deployment files parse, and name metrics, commands and files that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
METRIC = re.compile(r"\bagentexec_[a-z_]+")
SUFFIXES = ("_total", "_bucket")


def known_metrics() -> set[str]:
    source = (ROOT / "django_agentexec" / "api" / "metrics.py").read_text()
    named = set(re.findall(r"\"(agentexec_[a-z_]+)\"", source))
    return named | {f"agentexec_{name}" for name in re.findall(r"_(?:counter|histogram)\(\s*\"([a-z_]+)\"", source)}


def documents(path: Path) -> Iterator[dict[str, Any]]:
    yield from (document for document in yaml.safe_load_all(path.read_text()) if document)


def unknown_metrics(text: str) -> set[str]:
    names = set(METRIC.findall(text))
    for suffix in SUFFIXES:
        names = {name.removesuffix(suffix) for name in names}
    return names - known_metrics()


def test_alerts_ask_for_metrics_that_exist() -> None:
    rules = next(documents(DEPLOY / "prometheus" / "alerts.yml"))["groups"][0]["rules"]

    assert len(rules) >= 5
    assert unknown_metrics("\n".join(rule["expr"] for rule in rules)) == set()
    assert all(rule["annotations"]["description"] for rule in rules)


def test_dashboard_asks_for_metrics_that_exist() -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]

    assert len(expressions) >= 10
    assert unknown_metrics("\n".join(expressions)) == set()
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool, from the Prometheus server's package")
def test_alerts_fire_when_they_should() -> None:
    done = subprocess.run(
        ["promtool", "test", "rules", "alerts_test.yml"], cwd=DEPLOY / "prometheus", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    for unit in (DEPLOY / "systemd").glob("*.service"):
        # The programs are on the server, not here.
        text = re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", unit.read_text())
        copy = tmp_path / unit.name
        copy.write_text(text)
        done = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), unit.name


def test_pods_get_longer_to_stop_than_a_pool_needs() -> None:
    from django_agentexec.conf import Settings

    needed = Settings.GRACE_PERIOD.default + 20
    (deployment, budget) = documents(DEPLOY / "kubernetes" / "pool.yaml")
    spec = deployment["spec"]["template"]["spec"]
    compose = next(documents(DEPLOY / "compose.yaml"))
    unit = (DEPLOY / "systemd" / "agentexec@.service").read_text()

    assert spec["terminationGracePeriodSeconds"] >= needed + 5  # preStop counts
    assert int(compose["services"]["pool"]["stop_grace_period"].removesuffix("s")) >= needed
    assert int(re.findall(r"TimeoutStopSec=(\d+)", unit)[0]) >= needed
    assert budget["spec"]["selector"] == deployment["spec"]["selector"]


def test_every_container_runs_without_privileges() -> None:
    for path in (DEPLOY / "kubernetes").glob("*.yaml"):
        for document in documents(path):
            pod = document.get("spec", {}).get("template", {}).get("spec")
            if pod is None:
                continue
            assert pod["securityContext"]["runAsNonRoot"] is True, path.name
            for container in pod["containers"]:
                context = container["securityContext"]
                assert context["allowPrivilegeEscalation"] is False, path.name
                assert context["readOnlyRootFilesystem"] is True, path.name


def test_the_image_copies_files_that_exist_and_runs_as_a_user() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    clone_row = [
        word for line in lines if line.startswith("COPY ") and "--from" not in line for word in line.split()[1:-1]
    ]

    assert clone_row
    assert [name for name in clone_row if not (ROOT / name).exists()] == []
    assert "USER app" in lines
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert [name for name in clone_row if f"!{name.rstrip('/')}" not in ignored] == []


def test_commands_of_the_deployment_exist() -> None:
    text = "\n".join(path.read_text() for path in DEPLOY.rglob("*") if path.is_file())
    commands = set(re.findall(r"manage\.py[\"',\s]+([a-z_]+)", text)) - {"migrate", "collectstatic", "check"}
    existing = {path.stem for path in (ROOT / "django_agentexec" / "management" / "commands").glob("*.py")}

    assert "runagentworkers" in commands
    assert commands <= existing
