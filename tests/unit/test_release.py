"""The release: one version, the files of the package, and the options of the workflows."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

import django_agentexec
from tests.support import distribution

ROOT = Path(__file__).resolve().parents[2]
VERSION = django_agentexec.__version__


def makefile_variable(name: str) -> str:
    found = re.search(rf"^{name} [:?]?= (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert found
    return found[1]


def test_the_version_is_written_in_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())

    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["hatch"]["version"] == {"path": "django_agentexec/__init__.py"}
    assert distribution.package_version() == VERSION


def test_a_wheel_without_a_catalogue_or_with_tests_is_refused() -> None:
    files = distribution.package_files() | {f"django_agentexec-{VERSION}.dist-info/METADATA"}
    catalogue = "django_agentexec/locale/de/LC_MESSAGES/django.mo"

    assert {catalogue, "django_agentexec/py.typed", "django_agentexec/queues/redis/lua/prelude.lua"} <= files
    assert distribution.wheel_problems(files, VERSION) == []
    assert distribution.wheel_problems({*files, "tests/settings.py"} - {catalogue}, VERSION) == [
        f"{catalogue} is missing in the wheel",
        "tests/settings.py is in the wheel",
    ]


def test_a_source_archive_has_the_same_files() -> None:
    top = f"django_agentexec-{VERSION}"
    files = {f"{top}/{name}" for name in distribution.package_files() | distribution.BESIDE_THE_PACKAGE}

    assert distribution.archive_problems(files, VERSION) == []
    assert distribution.archive_problems({*files, f"{top}/docs/index.md"}, VERSION) == [
        "docs/index.md is in the source archive"
    ]


def test_the_newest_django_is_tested_without_celery_beat_which_does_not_allow_it() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())
    matrix = workflow["jobs"]["fast"]["strategy"]["matrix"]

    assert {"django": "6.1", "options": f"EXTRAS={makefile_variable('WITHOUT_BEAT')}"} in matrix["include"]
    assert makefile_variable("WITHOUT_BEAT").split(",") == [
        extra for extra in makefile_variable("EXTRAS").split(",") if extra != "beat"
    ]
    assert any("${{ matrix.options }}" in step.get("run", "") for step in workflow["jobs"]["fast"]["steps"])


def test_migrations_are_checked_before_a_commit_that_changes_a_model() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    files = next(hook["files"] for hook in hooks if hook["id"] == "migrations")

    models = [*(ROOT / "django_agentexec").glob("models/*.py"), *(ROOT / "django_agentexec").glob("*/models.py")]
    assert models
    assert [path for path in models if not re.search(files, path.relative_to(ROOT).as_posix())] == []


def test_the_workflows_name_targets_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        jobs = yaml.safe_load(path.read_text())["jobs"].values()
        commands = [step.get("run", "") for job in jobs for step in job["steps"]]
        called = {word for command in commands if command.startswith("make ") for word in command.split()[1:]}
        targets = {word for word in called if re.fullmatch(r"[a-z-]+", word)}
        assert {target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)} == set(), path
