"""Check of a built release: `python -m tests.support.distribution dist`.

The wheel and the source archive in the folder have the version of the package, all of its files, and no tests.
"""

from __future__ import annotations

import re
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "django_agentexec"
KINDS = (".py", ".typed", ".mo", ".po", ".html", ".css", ".js", ".svg", ".lua")
BESIDE_THE_PACKAGE = {"README.md", "CHANGELOG.md", "LICENSE", "PKG-INFO", "pyproject.toml", ".gitignore"}


def package_version() -> str:
    """Return the version of the code."""
    match = re.search(r'__version__ = "(.+)"', (PACKAGE / "__init__.py").read_text())
    assert match
    return match[1]


def package_files() -> set[str]:
    """Return the paths of all files that a user needs."""
    found = (path for path in PACKAGE.rglob("*") if path.suffix in KINDS and "__pycache__" not in path.parts)
    return {path.relative_to(ROOT).as_posix() for path in found}


def wheel_problems(names: Iterable[str], version: str) -> list[str]:
    """Return a sentence for each difference of a wheel's paths from what they must be."""
    own = {name for name in names if not name.startswith(f"django_agentexec-{version}.dist-info/")}
    return _differences("wheel", own, set())


def archive_problems(names: Iterable[str], version: str) -> list[str]:
    """Return a sentence for each difference of a source archive's paths from what they must be."""
    return _differences(
        "source archive", {name.removeprefix(f"django_agentexec-{version}/") for name in names}, BESIDE_THE_PACKAGE
    )


def _differences(where: str, names: set[str], allowed: set[str]) -> list[str]:
    missing = [f"{name} is missing in the {where}" for name in sorted(package_files() - names)]
    return missing + [f"{name} is in the {where}" for name in sorted(names - package_files() - allowed)]


def main() -> None:
    dist, version = Path(sys.argv[1]), package_version()
    wheel = dist / f"django_agentexec-{version}-py3-none-any.whl"
    archive = dist / f"django_agentexec-{version}.tar.gz"
    problems = [f"{path} does not exist" for path in (wheel, archive) if not path.exists()]
    if not problems:
        with zipfile.ZipFile(wheel) as opened:
            problems += wheel_problems(opened.namelist(), version)
        with tarfile.open(archive) as opened_archive:
            problems += archive_problems(opened_archive.getnames(), version)
    print("\n".join(problems) or f"Version {version}: {len(package_files())} files in both.")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
