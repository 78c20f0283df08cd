"""Faults, drawn from a seed. A schedule depends only on its seed and form, so that a replay draws the same faults. The
victim is a fraction, which is resolved to a process when the fault is injected."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

HOUR = 3600.0
CLOCKS = (0.0, HOUR, -HOUR)


@dataclass(frozen=True)
class Fault:
    """One fault: its kind, and the seconds since the previous fault."""

    kind: str
    pause: float
    victim: float = 0.0
    """From 0 to 1: the position among the possible victims, in the order of their numbers."""
    seconds: float = 0.0
    """The duration in seconds."""
    choice: str = ""
    """The variant of the fault."""
    clock: float = 0.0
    """Seconds by which the clock of the pool that is started next is wrong."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fault for a report, without unused fields."""
        return {name: value for name, value in asdict(self).items() if value}


@dataclass(frozen=True)
class Form:
    """The intensity of a run. Times are in seconds."""

    name: str
    database: str
    """`sqlite` or `postgresql`."""
    activities: int
    """The minimum number of enqueued activities."""
    seconds: float = 0.0
    """The minimum duration of the faults."""
    worker_kills: int = 0
    """The minimum number of killed workers."""
    valkey_kills: int = 0
    rate: float = 25.0
    """Activities per second of one producer."""
    specials: int = 400
    """The reciprocal of the fraction of activities that are poison."""
    producers: int = 2
    pools: int = 2
    longest_cut: float = 5.0
    pauses: tuple[float, float] = (0.3, 2.0)
    """The minimum and maximum time between two faults."""
    deadline: float = 60.0
    """The maximum time until everything has ended after the last fault."""
    weights: dict[str, int] = field(default_factory=dict)


WEIGHTS = {
    "kill_worker": 24,
    "freeze_worker": 14,
    "kill_pool": 4,
    "freeze_pool": 3,
    "deploy": 4,
    "kill_valkey": 6,
    "flush": 3,
    "restart_database": 4,
    "network": 14,
}
ON_POSTGRESQL_ONLY = ("restart_database",)
MAX_FREEZE = 4.0  # leases
NETWORK = ("cut", "half_open", "half_open_forget", "delay", "reset")
PLACES = ("valkey", "database", "both")


def draw(seed: int, form: Form, lease: float) -> Iterator[Fault]:
    """Yield faults without end."""
    source = random.Random(f"faults-{seed}-{form.name}-{form.database}")
    weights = {**WEIGHTS, **form.weights}
    if form.database == "sqlite":
        weights = {name: weight for name, weight in weights.items() if name not in ON_POSTGRESQL_ONLY}
    # One fault of each kind first, so that a short run contains them all.
    of_each = source.sample(list(weights), len(weights))
    while True:
        kind = of_each.pop() if of_each else source.choices(list(weights), list(weights.values()))[0]
        pause, victim = source.uniform(*form.pauses), source.random()
        length, clock = source.random(), source.choice(CLOCKS)
        network, place, mode = source.choice(NETWORK), source.choice(PLACES), source.choice(["fast", "immediate"])
        match kind:
            case "freeze_worker" | "freeze_pool":
                # Some resume within their lease, others long after another worker has taken their work.
                yield Fault(kind, pause, victim, seconds=MAX_FREEZE * lease * length)
            case "kill_pool" | "deploy":
                yield Fault(kind, pause, victim, clock=clock)
            case "kill_valkey":
                yield Fault(kind, pause, seconds=2.0 * length**2)
            case "restart_database":
                yield Fault(kind, pause, choice=mode)
            case "network":
                # Most are short, since a long fault hides the effects of other faults.
                seconds = 0.0 if network == "reset" else form.longest_cut * length**3 + 0.2
                where = "valkey" if form.database == "sqlite" else place
                yield Fault(kind, pause, victim, seconds=seconds, choice=f"{network}:{where}")
            case _:
                yield Fault(kind, pause, victim)
