"""Run the benchmarks: `python -m benchmarks --help`.

Measures this project on both databases and the peers that are installed, all on one Redis server, figure by figure in
turn; prints medians, and writes all figures, with machine and versions, as JSON into benchmarks/results/. With
`--publish` it makes docs/benchmarks.md and its plots from them.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks import environments, table
from benchmarks.machine import machine, versions
from benchmarks.report import Report
from benchmarks.sides import OWN_FIGURES, Side, own, peer, sqlite
from tests.support.servers import postgresql_server, valkey_server

RESULTS = Path(__file__).parent / "results"
DATABASES = ("sqlite", "postgresql")


def main() -> None:
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # also ends servers and workers
    if options.quick:
        os.environ["BENCHMARK_QUICK"] = "1"
    peers = environments.installed() if options.peers is None else options.peers
    if missing := [name for name in peers if not environments.python_of(name).exists()]:
        sys.exit(f"Not installed: {', '.join(missing)}. Install by: python -m benchmarks.environments")
    if options.publish and find_spec("matplotlib") is None:
        sys.exit("--publish draws plots. Install what draws them: pip install matplotlib (the dependency group bench)")
    if absent := [name for name in environments.PEERS if name not in peers]:
        print(f"Not installed: {', '.join(absent)}. `make bench PEERS=1` installs and measures them.")
    started = time.monotonic()
    with ExitStack() as servers:
        report = _run(_sides(servers, options.database, peers), options)
    report.minutes = round((time.monotonic() - started) / 60, 1)
    RESULTS.mkdir(exist_ok=True)
    path = options.output or RESULTS / f"{datetime.now(UTC):%Y%m%d-%H%M%S}.json"
    path.write_text(report.to_json())
    print(f"\n{table.markdown(report)}\n\nWritten after {report.minutes} minutes: {path}")
    if options.publish:
        table.publish(report)
        subprocess.run([sys.executable, "-m", "benchmarks.plots", path, table.PLOTS], check=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[], metavar="FIGURE", choices=OWN_FIGURES)
    parser.add_argument("--database", choices=DATABASES, nargs="*", default=list(DATABASES))
    parser.add_argument("--peers", nargs="*", metavar="NAME", help="installed peers to measure (default: all)")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="rough figures: smaller counts, shorter limits")
    parser.add_argument("--output", type=Path, help="the JSON file to write")
    parser.add_argument("--publish", action="store_true", help="write docs/benchmarks.md and its plots from this run")
    return parser


def _sides(servers: ExitStack, databases: list[str], peers: list[str]) -> list[Side]:
    url = servers.enter_context(valkey_server()).url
    os.environ["BENCHMARK_REDIS"] = url
    settings: dict[str, dict[str, Any]] = {}
    if "sqlite" in databases:
        settings["sqlite"] = sqlite(Path(servers.enter_context(tempfile.TemporaryDirectory())))
    if "postgresql" in databases:
        settings["postgresql"] = servers.enter_context(postgresql_server())
    return [own(name, settings[name], url) for name in settings] + [peer(name, url) for name in peers]


def _run(sides: list[Side], options: argparse.Namespace) -> Report:
    report = Report(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        runs=options.runs,
        quick=options.quick,
        machine=machine(),
        versions=versions(os.environ["BENCHMARK_REDIS"]),
    )
    for side in sides:
        if side.name not in DATABASES:
            report.describe(side.name, json.loads(side.ask("settings")))
    for run in range(options.runs):
        for figure in options.only or OWN_FIGURES:
            for side in sides:
                if figure in side.figures and not report.is_known(side.name, figure):
                    _measure(report, side, figure, run)
    return report


def _measure(report: Report, side: Side, figure: str, run: int) -> None:
    """Measure one figure once; a failure is printed and skipped, so that the other figures are kept."""
    try:
        figures = side.measure(figure)
    except (subprocess.SubprocessError, ValueError) as error:
        print(f"  FAILED: {side.name} {figure}: {error}", flush=True)
        report.failures.append(f"{side.name} {figure}")
        return
    report.add(side.name, figure, figures)
    if not figures:
        return
    shown = "  ".join(f"{key} {'-' if value is None else f'{value:,.2f}'}" for key, value in figures.items())
    print(f"  {run + 1}  {figure:<16} {side.name:<12} {shown}", flush=True)


if __name__ == "__main__":
    main()
