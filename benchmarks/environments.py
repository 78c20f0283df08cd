"""The environments in which peers are installed, one each, since no Redis client suits all of them: arq wants one
older than 6, SAQ one older than 8, taskiq-redis one from 8 on. Run as a module it installs them; `__main__` finds them.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".venv-bench"
REQUIREMENTS = Path(__file__).parent / "peers" / "requirements"
PEERS = ("celery", "rq", "dramatiq", "arq", "saq", "taskiq", "huey")


def python_of(peer: str) -> Path:
    """Return the interpreter that has a peer; it exists if the peer is installed."""
    return FOLDER / peer / "bin" / "python"


def installed() -> list[str]:
    """Return the peers that are installed."""
    return [peer for peer in PEERS if python_of(peer).exists()]


def install(peer: str) -> None:
    """Create a peer's environment, or bring it up to date."""
    if uv := shutil.which("uv"):
        subprocess.run([uv, "venv", "--quiet", "--allow-existing", FOLDER / peer], check=True)
    else:
        subprocess.run([sys.executable, "-m", "venv", FOLDER / peer], check=True)
    _pip(python_of(peer), "--upgrade", "-r", str(REQUIREMENTS / f"{peer}.txt"))


def install_plots() -> None:
    """Install the dependency group `bench`, which draws the plots, beside this project."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    _pip(Path(sys.executable), *project["dependency-groups"]["bench"])


def _pip(python: Path, *arguments: str) -> None:
    if uv := shutil.which("uv"):
        command = [uv, "pip", "install", "--quiet", "--python", str(python)]
    else:
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*command, *arguments], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peers", nargs="*", metavar="NAME", help=f"of {', '.join(PEERS)}; all, if none is named")
    peers = parser.parse_args().peers or PEERS
    if unknown := set(peers) - set(PEERS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known are {', '.join(PEERS)}")
    for peer in peers:
        print(f"Installing {peer} into {FOLDER.name}/{peer}", flush=True)
        install(peer)
    install_plots()


if __name__ == "__main__":
    main()
