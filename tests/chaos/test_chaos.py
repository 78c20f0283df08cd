"""The short form: half a minute of faults, with separate processes and servers; there must be no findings.

`make chaos` is the long form. The seed is printed; `CHAOS_SEED` replays its draws, though not the machine's timing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

TIMEOUT = 420.0  # seconds; a run takes 60, and on a slow machine the start of the pools takes as long


def test_what_is_promised_holds_in_chaos(tmp_path: Path) -> None:
    seed = os.environ.get("CHAOS_SEED") or str(time.time_ns() % 1_000_000)
    report = tmp_path / "report.json"
    run = subprocess.run(
        [sys.executable, "-m", "tests.chaos"],
        env={
            **os.environ,
            "CHAOS_FORM": "short",
            "CHAOS_DATABASE": os.environ.get("AGENTEXEC_TEST_DB", "sqlite"),
            "CHAOS_SEED": seed,
            "CHAOS_REPORT": str(report),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT,
    )
    print(run.stdout)

    assert run.returncode == 0, run.stdout
    summary = json.loads(report.read_text())
    assert summary["is_clean"]
    # Without faults the promises would not have been tested.
    assert summary["faults"]["kill_worker"] >= 1
    assert summary["activities"]["all"] >= 500
    assert summary["activities"].keys() >= {"keyed complete", "failing error", "plain complete"}
    assert summary["observed"]["undone"] > 0
