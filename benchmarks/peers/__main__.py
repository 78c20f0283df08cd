"""Measure one figure of one peer, in the environment where it is installed: `python -m benchmarks.peers NAME FIGURE`.

Prints the figures as JSON. `benchmarks.environments` calls this; the address of the server is in the environment.
BENCHMARK_VERBOSE=1 shows what the workers say.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import tempfile
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from benchmarks.peers.base import PURPOSE_VARIABLE, BasePeer
from benchmarks.peers.figures import FIGURES, Bench, forget_everything
from benchmarks.peers.tally import VARIABLE, Tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("figure", choices=[*FIGURES, "settings"])
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # also ends the workers
    measure, purpose = FIGURES.get(options.figure, (None, "calls"))
    os.environ[PURPOSE_VARIABLE] = purpose
    peer: BasePeer = import_module(f"benchmarks.peers.{options.name}").Peer()
    if measure is None:
        print(json.dumps({"settings": peer.settings, "versions": _versions(options.name)}))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tally"
        os.environ[VARIABLE] = str(path)
        forget_everything()
        peer.open()
        print(json.dumps(measure(Bench(peer, Tally(path), bool(os.environ.get("BENCHMARK_QUICK"))))))
        forget_everything()


def _versions(name: str) -> dict[str, str]:
    """Return the installed versions of the requirements of the peer, and of the Redis client."""
    lines = (Path(__file__).parent / "requirements" / f"{name}.txt").read_text().splitlines()
    packages = [re.split(r"[\[>=<]", line)[0] for line in lines] + ["redis"]
    return {package: version(package) for package in packages if package != "openai-agents"}


if __name__ == "__main__":
    main()
