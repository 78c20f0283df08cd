"""Commands into a pipe whose reader ends early (`manage.py agentexec list | head -1`), or with another encoding."""

from __future__ import annotations

import json
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


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "ascii:surrogateescape"])
@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_an_encoding_without_a_character_is_no_error(encoding: str, as_json: bool) -> None:
    activity.create("import", "Größe \u2264 \U0001f600")
    command = [sys.executable, "-m", "django", "agentexec", "list", *(["--json"] if as_json else [])]
    done = subprocess.run(
        command, env={**environment(), "PYTHONIOENCODING": encoding}, capture_output=True, timeout=PATIENCE
    )

    assert done.returncode == 0, done.stderr
    text = done.stdout.decode("latin-1")
    if as_json:
        assert json.loads(text)["items"][0]["latest_log_message"] == "Größe \u2264 \U0001f600"
    else:
        assert r"\u2264 \ud83d\ude00" in text
