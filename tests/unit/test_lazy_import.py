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


def loaded_after(statements: str) -> set[str]:
    """Return the names of the modules that a fresh interpreter has loaded after `statements`."""
    code = f"import sys\n{statements}\nsys.stdout.write(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_neither_sdk_nor_models() -> None:
    loaded = loaded_after("import django_agentexec; dir(django_agentexec)")

    assert "django_agentexec" in loaded
    assert not loaded & {"agents", "openai", "django", "django_agentexec.models"}


SETUP = "import os, django; os.environ['DJANGO_SETTINGS_MODULE'] = 'tests.settings'; django.setup()"


def test_an_installed_app_and_the_base_runner_do_without_the_sdk() -> None:
    loaded = loaded_after(f"{SETUP}\nfrom django_agentexec import BaseAgentRunner")

    assert "django_agentexec.runners.base" in loaded
    assert not loaded & {"agents", "openai"}


def test_the_openai_runner_loads_the_sdk() -> None:
    assert "agents" in loaded_after(f"{SETUP}\nfrom django_agentexec import OpenAIRunner")


WITHOUT_SDK = "import sys; sys.modules['agents'] = sys.modules['openai'] = None"


WAYS_TO_INSPECT = [
    "dir(django_agentexec)",
    "import inspect; inspect.getmembers(django_agentexec)",
    "from django_agentexec import *",
    "import unittest.mock; unittest.mock.create_autospec(django_agentexec)",
    # What freezegun does with every module, at each freeze_time.
    "[getattr(m, name) for m in list(sys.modules.values()) for name in dir(m) if 'agentexec' in str(m)]",
]


@pytest.mark.parametrize("project", ["", SETUP], ids=["alone", "in a project"])
def test_inspecting_the_package_imports_nothing_of_the_sdk(project: str) -> None:
    checks = "\n".join(f"{way}\nassert 'agents' not in sys.modules, {way!r}" for way in WAYS_TO_INSPECT)
    loaded = loaded_after(f"{project}\nimport django_agentexec\n{checks}")

    assert "django_agentexec" in loaded
    assert project or "django_agentexec.models" not in loaded


@pytest.mark.parametrize("project", ["", SETUP], ids=["alone", "in a project"])
def test_inspecting_the_package_does_without_the_sdk(project: str) -> None:
    use = "task, enqueue, Attempt, Status" if project else ""  # bound by the star import
    loaded_after("\n".join([WITHOUT_SDK, project, "import django_agentexec", *WAYS_TO_INSPECT, use]))


def test_a_missing_sdk_is_named_with_the_command_that_installs_it() -> None:
    use = "from django_agentexec import OpenAIRunner"
    code = f"{WITHOUT_SDK}\n{SETUP}\n{use}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert (
        "ImportError: OpenAIRunner needs the OpenAI Agents SDK: pip install 'django-agentexec[openai]'" in done.stderr
    )


@pytest.mark.parametrize(
    ("library", "module", "extra"),
    [("rest_framework", "api.urls", "api"), ("django_filters", "api", "api"), ("channels", "live.routing", "live")],
)
def test_a_missing_extra_is_named_with_the_command_that_installs_it(library: str, module: str, extra: str) -> None:
    configured = (
        "from django.conf import settings; settings.configure(INSTALLED_APPS=[]); import django; django.setup()"
    )
    code = f"{configured}\nimport sys; sys.modules[{library!r}] = None\nimport django_agentexec.{module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert "\nImportError: " in done.stderr, done.stderr
    assert f"pip install 'django-agentexec[{extra}]'" in done.stderr


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


def test_the_package_itself_uses_no_deprecated_name() -> None:
    code = "import django_agentexec, django_agentexec.tasks\nfrom django_agentexec.tasks import *"
    loaded_after(f"import warnings\nwarnings.simplefilter('error', DeprecationWarning)\n{SETUP}\n{code}")


def test_the_user_project_of_the_type_checkers_uses_every_public_name() -> None:
    tree = ast.parse(Path(__file__).parents[1].joinpath("typing", "project.py").read_text())
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}

    assert sorted(public_names() - used) == []


def test_type_checkers_see_every_name_that_can_be_imported() -> None:
    for name in public_names() - DEPRECATED.keys():
        getattr(django_agentexec, name)

    assert {*django_agentexec.__all__, *DEPRECATED} == public_names()
