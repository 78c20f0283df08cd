"""The two releases of a rolling deploy: the package of an earlier commit, and the package of this checkout.

The tests of this checkout run with both: a process of the earlier release has its package first on PYTHONPATH.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = "django_agentexec"
BEFORE = "15b05c65cb46a63da4972a990ab97b3563164de2"
"""The default: the last commit of release 0.1 whose schema has three migrations."""


class MissingCommit(Exception):
    """The history of this checkout does not have the commit."""


@dataclass(frozen=True)
class Release:
    """A release, with the folders that its processes import from."""

    name: str
    path: tuple[Path, ...]

    def environment(self) -> dict[str, str]:
        """Return the variables with which a process imports this release, wherever it is started."""
        return {"PYTHONPATH": os.pathsep.join(map(str, self.path)), "PYTHONSAFEPATH": "1"}

    def verify(self) -> None:
        """Raise `RuntimeError` unless a process of this release imports its package."""
        printed = subprocess.run(
            [sys.executable, "-c", f"import {PACKAGE}; print({PACKAGE}.__file__)"],
            env={**os.environ, **self.environment()},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        if Path(printed).parent != self.path[0] / PACKAGE:
            raise RuntimeError(f"The {self.name} release imports {printed}, not the package in {self.path[0]}.")


def find_commit(commit: str, root: Path = ROOT) -> str:
    """Return the full id of a commit. Raises `MissingCommit`, with the remedy, if the history does not have it."""
    try:
        found = _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{commit}^{{commit}}")
        return found.decode().strip()
    except FileNotFoundError:
        raise MissingCommit("git is not installed, so the earlier release cannot be read from the history.") from None
    except subprocess.CalledProcessError:
        raise MissingCommit(
            f"{root} does not have the commit {commit!r}. In a shallow clone, run `git fetch --unshallow`; in a "
            "source archive without history, clone the repository; or name another commit with --from."
        ) from None


def check_out(commit: str, folder: Path) -> Release:
    """Extract the package of a commit into a folder, and return it as the earlier release."""
    folder = folder.resolve()
    archive = _git(ROOT, "archive", "--format=tar", find_commit(commit), PACKAGE)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    release = Release("old", (folder, ROOT))
    release.verify()
    return release


def current() -> Release:
    """Return this checkout as the new release."""
    release = Release("new", (ROOT,))
    release.verify()
    return release


def _git(root: Path, *arguments: str) -> bytes:
    return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, check=True).stdout
