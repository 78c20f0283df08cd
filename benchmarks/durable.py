"""The cost of durable agents on SQLite: `python -m benchmarks.durable`.

- The CPU time that recording adds per call of a model, and of a tool: the medians of pairs of runs in one worker,
  with `durable=True` and `durable=False`, that only hand off, and that call a tool in each turn. Target: below 1 ms.
- The storage of runs with 25, 50 and 100 turns whose tools return 20 kB each, and the time in which a later attempt
  replays them. Targets: linear, below 3 MB, and below 2 s.

Exits with 1 if a target is missed.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.sides import sqlite

PAIRS, TURNS = 30, 20
LENGTHS = (25, 50, 100)
OUTPUT = 20_000  # characters
MAX_CPU = 0.001  # seconds per call of a model
MAX_STORED = 3_000_000  # bytes
MAX_RESUME = 2.0  # seconds
MAX_GROWTH = 1.2  # of the storage per turn, from the shortest to the longest run


def measure() -> dict[str, Any]:
    """Return the figures. Django is set up, and the database is migrated."""
    from benchmarks.durable_tasks import Long, Pairs, durable_long, durable_pairs
    from benchmarks.pools import all_finished, pool, until
    from django_agentexec import get_result
    from django_agentexec.models import Activity

    with pool(workers=1, concurrency=1):
        handoffs = durable_pairs.enqueue(Pairs(pairs=PAIRS, turns=TURNS, with_tools=False))
        until(all_finished)
        tools = durable_pairs.enqueue(Pairs(pairs=PAIRS, turns=TURNS, with_tools=True))
        until(all_finished)
        long = {turns: durable_long.enqueue(Long(turns=turns, size=OUTPUT)) for turns in LENGTHS}
        until(all_finished)
    failed = [row.error for row in Activity.objects.exclude(status="complete")]
    if failed:
        raise RuntimeError(f"The measured activities have failed: {failed}")
    with_handoffs: list[float] = get_result(handoffs, timeout=1)
    with_tools: list[float] = get_result(tools, timeout=1)
    per_model_call = statistics.median(with_handoffs)
    return {
        "cpu_per_model_call": per_model_call,
        "cpu_per_tool_call": statistics.median(with_tools) - per_model_call,
        "stored": {turns: _stored_bytes(handle.agent_id) for turns, handle in long.items()},
        "resume": {turns: get_result(handle, timeout=1) for turns, handle in long.items()},
    }


def _stored_bytes(agent_id: Any) -> int:
    """Return the size of the calls of an activity, as JSON."""
    from django.core.serializers.json import DjangoJSONEncoder

    from django_agentexec.models import AgentCall

    rows = AgentCall.objects.filter(activity_id=agent_id).values()
    return sum(len(json.dumps(row, cls=DjangoJSONEncoder)) for row in rows)


def missed(figures: dict[str, Any]) -> list[str]:
    """Return the targets that the figures miss."""
    shortest, longest = min(LENGTHS), max(LENGTHS)
    growth = (figures["stored"][longest] / longest) / (figures["stored"][shortest] / shortest)
    checks = {
        f"CPU per model call {figures['cpu_per_model_call'] * 1000:.2f} ms": figures["cpu_per_model_call"] < MAX_CPU,
        f"storage {figures['stored'][longest] / 1e6:.2f} MB": figures["stored"][longest] < MAX_STORED,
        f"growth of the storage per turn {growth:.2f}": growth < MAX_GROWTH,
        f"resume {figures['resume'][longest]:.2f} s": figures["resume"][longest] < MAX_RESUME,
    }
    for text, is_met in checks.items():
        print(f"{text}: {'met' if is_met else 'MISSED'}")
    return [text for text, is_met in checks.items() if not is_met]


def main() -> int:
    """Start the servers, measure, print."""
    import django

    from tests.support.servers import valkey_server

    with valkey_server() as valkey, tempfile.TemporaryDirectory() as folder:
        os.environ["BENCHMARK_REDIS"] = valkey.url
        os.environ["BENCHMARK_DATABASE"] = json.dumps(sqlite(Path(folder)))
        os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"
        django.setup()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        figures = measure()
    print(json.dumps(figures, indent=2))
    return 1 if missed(figures) else 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # threads of live updates would keep the interpreter running
