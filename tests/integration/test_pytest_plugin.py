"""The pytest plugin, in a small project with separate settings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = {
    "project_settings.py": """
SECRET_KEY = "x"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "django_agentexec"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
USE_TZ = True
""",
    "test_project.py": """
import pytest
from pydantic import BaseModel
from django_agentexec import aget_result, get_result, task
from django_agentexec.queues import get_queue
from django_agentexec.testing import assert_enqueued

class Text(BaseModel):
    text: str

@task("shout")
def shout(agent_id, context: Text) -> str:
    return context.text.upper()

@pytest.mark.django_db
def test_drain(drain):
    run = shout.enqueue(Text(text="a"))
    assert_enqueued(shout, text="a")
    assert drain() == 1
    assert get_result(run) == "A"

@pytest.mark.django_db(transaction=True)
@pytest.mark.asyncio
async def test_adrain(adrain):
    run = await shout.aenqueue(Text(text="b"))
    assert await adrain() == 1
    assert await aget_result(run) == "B"

def test_queue(agentexec_queue):
    assert type(agentexec_queue).__name__ == "MemoryQueue"
    assert get_queue() is agentexec_queue
""",
}


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}",
        "DJANGO_SETTINGS_MODULE": "project_settings",
    }
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=folder, env=environment)


def test_the_fixtures_work_in_a_project(tmp_path: Path) -> None:
    for name, content in PROJECT.items():
        (tmp_path / name).write_text(content)

    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "--fixtures-per-test", folder=tmp_path)
    assert "Use the in-memory queue during the test" in done.stdout, done.stdout + done.stderr
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", folder=tmp_path)

    assert "3 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("module", ["django", "django_agentexec.models", "agents"])
def test_the_plugin_imports_nothing_when_it_is_loaded(tmp_path: Path, module: str) -> None:
    code = f"import sys, django_agentexec.pytest_plugin; sys.exit({module!r} in sys.modules)"

    assert run("-c", code, folder=tmp_path).returncode == 0
