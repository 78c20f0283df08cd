"""The tutorial works: its files and commands, from an empty folder, with SQLite and the embedded server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 120.0  # seconds for a command
FILE = re.compile(r"^(?:# |<!-- )([\w/]+\.(?:py|html))( \(at the end\))?(?: -->)?\n")
RUNS_UNTIL_STOPPED = ("runserver", "runagentworkers --autoreload")

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def blocks() -> list[tuple[str, str]]:
    """Return the language and the text of each code block of the page."""
    page = (ROOT / "docs" / "tutorial.md").read_text()
    return re.findall(r"^```(\w+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Return the commands that need neither a network nor a terminal."""
    lines = [line for language, text in blocks() if language == "sh" for line in text.splitlines()]
    return [
        line
        for line in lines
        if line.startswith(("django-admin ", "python manage.py ")) and not line.endswith(RUNS_UNTIL_STOPPED)
    ]


def write_files(project: Path) -> None:
    """Write the files of the page; those that exist are replaced or extended, as the page says."""
    for language, text in blocks():
        if match := FILE.match(text):
            path = project / match[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            before = path.read_text() if match[2] else ""
            path.write_text(before + text)
        else:
            assert language == "sh", f"a block without a file name:\n{text}"


class Project:
    """A folder in which commands run as in a shell."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        removed = ("DJANGO_SETTINGS_MODULE", "OPENAI_API_KEY")
        self.environment = {key: value for key, value in os.environ.items() if key not in removed}
        self.environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment["PYTHONPATH"] = str(ROOT)

    def run(self, command: str) -> str:
        """Run a command, and return what it printed to stdout."""
        done = subprocess.run(
            command,
            shell=True,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout + (done.stderr if " test" in command or " check" in command else "")


@dataclass
class Desk:
    """The project of the page, after all of its commands."""

    project: Project
    printed: dict[str, str]
    """What each command has printed."""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """Follow the page from an empty folder."""
    project = Project(tmp_path_factory.mktemp("tutorial"))
    printed: dict[str, str] = {}
    for command in commands():
        printed[command] = project.run(command)
        if command.endswith("startapp desk"):
            write_files(project.folder)
    return Desk(project, printed)


def test_the_files_and_commands_of_the_page_work_from_an_empty_folder(desk: Desk) -> None:
    printed = desk.printed
    assert "no issues" in printed["python manage.py check"]
    assert "complete" in printed["python manage.py agentexec list"]
    assert "OK" in printed["python manage.py test"]
    listed = json.loads(desk.project.run("python manage.py agentexec list --type triage_ticket --json"))
    assert [(item["agent_type"], item["status"]) for item in listed["items"]] == [("triage_ticket", "complete")]


def test_the_agent_of_the_page_runs_in_a_pool(desk: Desk) -> None:
    project = desk.project
    agent_id = project.run("python manage.py agents enqueue draft_answer '{\"ticket_id\": 2}'").strip()
    project.run("python manage.py runagentworkers --burst")

    assert "Thank you" in project.run(f"python manage.py agents result {agent_id}")
    assert "Searching." in project.run(f"python manage.py agents show {agent_id}")
