"""Virtual environments of the peers, one each, since no version of the Redis client suits all of them: arq needs
a version below 6, SAQ a version below 8, taskiq-redis 8 or newer. Run as a module, it installs them.
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
    """Return the interpreter of a peer; the file exists if the peer is installed."""
    return FOLDER / peer / "bin" / "python"


def installed() -> list[str]:
    """Return the installed peers."""
    return [peer for peer in PEERS if python_of(peer).exists()]


def install(peer: str) -> None:
    """Create or update the environment of a peer."""
    if uv := shutil.which("uv"):
        subprocess.run([uv, "venv", "--quiet", "--allow-existing", FOLDER / peer], check=True)
    else:
        subprocess.run([sys.executable, "-m", "venv", FOLDER / peer], check=True)
    _pip(python_of(peer), "--upgrade", "-r", str(REQUIREMENTS / f"{peer}.txt"))


def install_plots() -> None:
    """Install the dependency group `bench`, which draws the plots, into the environment of this project."""
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
    parser.add_argument("peers", nargs="*", metavar="NAME", help=f"any of {', '.join(PEERS)} (default: all)")
    peers = parser.parse_args().peers or PEERS
    if unknown := set(peers) - set(PEERS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known are {', '.join(PEERS)}")
    for peer in peers:
        print(f"Installing {peer} into {FOLDER.name}/{peer}", flush=True)
        install(peer)
    install_plots()


if __name__ == "__main__":
    main()
