"""The short form of a rolling deploy: both releases, kills of both, and the way back; there must be no findings.

`make rolling-deploy` is the long form. Skipped where the history does not have the commit of the old release.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.chaos.rolling_deploy.release import BEFORE, MissingCommit, find_commit

TIMEOUT = 420.0  # seconds; a run takes 40, and several times as long on a loaded machine


def reason_to_skip() -> str:
    """Return why the earlier release cannot be used, or an empty text."""
    try:
        find_commit(BEFORE)
    except MissingCommit as error:
        return str(error)
    return ""


def deploy(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.chaos.rolling_deploy", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT,
    )


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.skipif(bool(reason_to_skip()), reason=reason_to_skip() or "-")
def test_both_releases_work_side_by_side_and_the_way_back_keeps_every_row(tmp_path: Path) -> None:
    seed = os.environ.get("CHAOS_SEED") or str(time.time_ns() % 1_000_000)
    report = tmp_path / "report.json"
    run = deploy(
        *("--database", os.environ.get("AGENTEXEC_TEST_DB", "sqlite"), "--seed", seed, "--report", str(report)),
        *("--activities", "100", "--kills", "2", "--pools", "1"),
    )
    print(run.stdout)

    assert run.returncode == 0, run.stdout
    summary = json.loads(report.read_text())
    assert summary["is_clean"]
    # Without these the promises would not have been tested.
    figures = summary["figures"]
    assert figures["kills"] == {"old": 1, "new": 1}
    assert figures["migrations"] >= 1
    assert figures["enqueued by"].keys() == {"old", "new"}
    assert figures["by task"].keys() >= {"family complete", "relay complete", "keyed complete", "plain complete"}
    assert figures["due times"]["due"] >= 1
    assert figures["rows compared after the way back"] >= 100


def test_a_commit_that_the_history_does_not_have_is_a_clear_error() -> None:
    run = deploy("--from", "0" * 40)

    assert run.returncode == 2
    assert f"does not have the commit {'0' * 40!r}" in run.stdout
    assert "git fetch --unshallow" in run.stdout


def test_an_archive_without_history_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(MissingCommit, match="source archive without history"):
        find_commit(BEFORE, tmp_path)


def test_a_name_of_a_commit_is_resolved_and_an_option_is_not() -> None:
    if reason_to_skip():
        pytest.skip(reason_to_skip())
    assert find_commit(BEFORE[:12]) == BEFORE
    with pytest.raises(MissingCommit):
        find_commit("--all")
