"""The measured sides: this project on a database, or a peer. Each figure is measured in a separate process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.environments import ROOT, python_of

LIMIT = 900.0  # maximum seconds of a measurement
Figures = dict[str, float | None]

OWN_FIGURES = (
    *("idle_latency", "concurrency", "concurrency_500", "drain", "keyed_drain", "enqueue", "claim_cost", "queue_layer"),
    *("idle_commands", "cancel_latency", "memory", "recovery", "list_million", "websocket_fanout"),
)
PEER_FIGURES = (
    *(
        "idle_latency",
        "concurrency",
        "concurrency_500",
        "drain",
        "keyed_drain",
        "enqueue",
        "idle_commands",
        "memory",
        "recovery",
    ),
)


@dataclass(frozen=True)
class Side:
    """A column of the table: its name, the command that measures a figure, and the environment of the command."""

    name: str
    command: tuple[str, ...]
    figures: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)

    def ask(self, word: str) -> str:
        """Run the command with one more argument, and return its output."""
        environment = {**os.environ, **self.environment, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen([*self.command, word], env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        try:
            output, _ = process.communicate(timeout=LIMIT)
        except BaseException:
            process.terminate()  # lets it end its workers
            process.wait(60)
            raise
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, [*self.command, word])
        return output

    def measure(self, figure: str) -> Figures:
        """Measure once."""
        figures: Figures = json.loads(self.ask(figure))
        return figures


def own(database: str, settings: dict[str, Any], redis_url: str) -> Side:
    """Return this project on a database, which is migrated."""
    environment = {"BENCHMARK_REDIS": redis_url, "BENCHMARK_DATABASE": json.dumps(settings)}
    side = Side(database, (sys.executable, "-m", "benchmarks.ours"), OWN_FIGURES, environment)
    side.ask("migrate")
    return side


def peer(name: str, redis_url: str) -> Side:
    """Return a peer, in another database of the same server."""
    command = (str(python_of(name)), "-m", "benchmarks.peers", name)
    return Side(name, command, PEER_FIGURES, {"BENCHMARK_REDIS": f"{redis_url}?db=1"})


def sqlite(folder: Path) -> dict[str, Any]:
    """Return the settings of a new SQLite database."""
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(folder / "benchmark.sqlite3"),
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
        },
    }
