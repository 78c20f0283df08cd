"""Importing the package loads neither the agents SDK (over a second, 90 MB) nor models."""

from __future__ import annotations

import subprocess
import sys


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
