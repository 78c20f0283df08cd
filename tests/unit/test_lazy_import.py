"""Importing the package loads neither the agents SDK (over a second, 90 MB) nor models."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import django_agentexec
from tests.support.public_api import DEPRECATED, public_names

SETUP = "import os, django; os.environ['DJANGO_SETTINGS_MODULE'] = 'tests.settings'; django.setup()"
NO_DEPRECATED_NAMES = "import warnings; warnings.simplefilter('error', DeprecationWarning)"
WITHOUT_SDK = "import sys; sys.modules['agents'] = sys.modules['openai'] = None"
WAYS_TO_INSPECT = [
    "dir(django_agentexec)",
    "import inspect; inspect.getmembers(django_agentexec)",
    "from django_agentexec import *",
    "import unittest.mock; unittest.mock.create_autospec(django_agentexec)",
    # What freezegun does with every module, at each freeze_time.
    "[getattr(m, name) for m in list(sys.modules.values()) for name in dir(m) if 'agentexec' in str(m)]",
]


def run(*statements: str) -> subprocess.CompletedProcess[str]:
    """Run statements in a new interpreter."""
    return subprocess.run([sys.executable, "-c", "\n".join(statements)], capture_output=True, text=True)


def loaded_after(*statements: str) -> set[str]:
    """Return the names of the modules that a new interpreter has loaded after statements."""
    done = run(*statements, "import sys; sys.stdout.write(' '.join(sys.modules))")
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def inspected() -> list[str]:
    """Return statements that inspect the package in each way, and fail at the first that imports the SDK."""
    return [f"{way}\nassert not sys.modules.get('agents'), {way!r}" for way in WAYS_TO_INSPECT]


def test_neither_importing_nor_inspecting_the_package_loads_the_sdk_or_models() -> None:
    loaded = loaded_after("import sys, django_agentexec", *inspected())

    assert "django_agentexec" in loaded
    assert not loaded & {"agents", "openai", "django", "django_agentexec.models"}


def test_a_project_with_the_base_runner_does_without_the_sdk_and_deprecated_names() -> None:
    loaded = loaded_after(
        NO_DEPRECATED_NAMES,
        SETUP,
        "import sys, django_agentexec, django_agentexec.tasks",
        "from django_agentexec import BaseAgentRunner",
        "from django_agentexec.tasks import *",
        *inspected(),
    )

    assert "django_agentexec.runners.base" in loaded
    assert not loaded & {"agents", "openai"}


def test_the_openai_runner_needs_the_sdk() -> None:
    assert django_agentexec.OpenAIRunner.__module__ in sys.modules
    assert "agents" in sys.modules


def test_the_package_alone_works_without_the_sdk() -> None:
    assert loaded_after(WITHOUT_SDK, "import django_agentexec", *inspected())


def test_a_project_works_without_the_sdk_and_is_given_the_command_that_installs_it() -> None:
    used_by_a_project = "task, enqueue, Attempt, Status"  # bound by the star import

    done = run(
        WITHOUT_SDK,
        SETUP,
        "import django_agentexec",
        *inspected(),
        used_by_a_project,
        "sys.stdout.write('works')",
        "from django_agentexec import OpenAIRunner",
    )

    assert done.stdout == "works", done.stderr
    assert (
        "ImportError: OpenAIRunner needs the OpenAI Agents SDK: pip install 'django-agentexec[openai]'" in done.stderr
    )


def test_a_missing_extra_is_named_with_the_command_that_installs_it() -> None:
    attempts = [
        ("rest_framework", "api.urls", "api"),
        ("django_filters", "api", "api"),
        ("channels", "live.routing", "live"),
    ]
    failing = [
        f"sys.modules[{library!r}] = None\n"
        f"try: import django_agentexec.{module}\n"
        "except ImportError as error: print(error)\n"
        f"del sys.modules[{library!r}]"
        for library, module, _ in attempts
    ]

    done = run(
        "from django.conf import settings; settings.configure(INSTALLED_APPS=[])",
        "import django, sys; django.setup()",
        *failing,
    )

    hints = done.stdout.splitlines()
    assert len(hints) == len(attempts), done.stderr
    for hint, (_, _, extra) in zip(hints, attempts, strict=True):
        assert f"pip install 'django-agentexec[{extra}]'" in hint


@pytest.mark.parametrize(
    ("module", "name", "replacement"),
    [
        ("django_agentexec", "ActivityHandle", "Run"),
        ("django_agentexec", "TaskDefinition", "Task"),
        ("django_agentexec.tasks", "ActivityHandle", "Run"),
        ("django_agentexec.tasks", "TaskDefinition", "Task"),
        ("django_agentexec.tasks.definition", "TaskDefinition", "Task"),
        ("django_agentexec.tasks.enqueue", "ActivityHandle", "Run"),
        ("django_agentexec.tasks.run", "ActivityHandle", "Run"),
    ],
)
def test_a_deprecated_name_warns_and_names_its_replacement(module: str, name: str, replacement: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"{module}.{name} is deprecated .* use {replacement}") as warnings:
        found = getattr(import_module(module), name)

    assert found is getattr(django_agentexec, replacement)
    assert [warning.filename for warning in warnings] == [__file__]


def test_the_user_project_of_the_type_checkers_uses_every_public_name() -> None:
    tree = ast.parse(Path(__file__).parents[1].joinpath("typing", "project.py").read_text())
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}

    assert sorted(public_names() - used) == []


def test_type_checkers_see_every_name_that_can_be_imported() -> None:
    for name in public_names() - DEPRECATED.keys():
        getattr(django_agentexec, name)

    assert {*django_agentexec.__all__, *DEPRECATED} == public_names()
