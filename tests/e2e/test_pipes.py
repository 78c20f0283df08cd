"""Commands into a pipe whose reader ends early: `manage.py agents list | head -1`."""

from __future__ import annotations

import subprocess
import sys

import pytest

from django_agentexec import activity
from tests.support.pool_process import PATIENCE, environment

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]


@pytest.mark.parametrize(
    "arguments",
    [
        ["agents", "list"],
        ["agents", "list", "--json"],
        ["agentworkers", "--json"],
        ["agentmonitor", "--once"],
        ["agentexec_health"],
        ["prune_activities", "--older-than", "1d"],
    ],
    ids=" ".join,
)
def test_a_closed_pipe_is_no_error(arguments: list[str]) -> None:
    for _ in range(3):
        activity.create("import")
    # A reader that ends before anything is written: the earliest that `head` can.
    command = [sys.executable, "-m", "django", *arguments]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read()
        code = process.wait(PATIENCE)

    assert "BrokenPipe" not in errors
    assert "Traceback" not in errors
    assert code in (0, 1)  # health without a worker is 1
