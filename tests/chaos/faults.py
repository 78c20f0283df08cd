"""Faults: what can happen to a system, drawn from a seed. A schedule depends on its seed and form alone, so that a
replay draws the same; which process is hit is a fraction, resolved when the fault strikes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

HOUR = 3600.0
CLOCKS = (0.0, HOUR, -HOUR)


@dataclass(frozen=True)
class Fault:
    """One fault: what, and after how many seconds since the one before it."""

    kind: str
    pause: float
    victim: float = 0.0
    """From 0 to 1: which of the possible victims, in the order of their numbers."""
    seconds: float = 0.0
    """How long it lasts."""
    choice: str = ""
    """Which form of the fault."""
    clock: float = 0.0
    """Seconds by which the clock of the pool that is started next is wrong."""

    def as_dict(self) -> dict[str, Any]:
        """Return it for a report, without what it does not use."""
        return {name: value for name, value in asdict(self).items() if value}


@dataclass(frozen=True)
class Form:
    """How hard a run is. Times are in seconds."""

    name: str
    database: str
    """`sqlite` or `postgresql`."""
    activities: int
    """How many are enqueued at least."""
    seconds: float = 0.0
    """How long faults come at least."""
    worker_kills: int = 0
    """How many workers are killed at least."""
    valkey_kills: int = 0
    rate: float = 25.0
    """Activities per second of one producer."""
    specials: int = 400
    """One activity in so many is poison."""
    producers: int = 2
    pools: int = 2
    longest_cut: float = 5.0
    pauses: tuple[float, float] = (0.3, 2.0)
    """Between two faults, at least and at most."""
    deadline: float = 60.0
    """Until everything has ended, once all is well again."""
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
    # One of each first, so that a short run has seen them all.
    of_each = source.sample(list(weights), len(weights))
    while True:
        kind = of_each.pop() if of_each else source.choices(list(weights), list(weights.values()))[0]
        pause, victim = source.uniform(*form.pauses), source.random()
        length, clock = source.random(), source.choice(CLOCKS)
        network, place, mode = source.choice(NETWORK), source.choice(PLACES), source.choice(["fast", "immediate"])
        match kind:
            case "freeze_worker" | "freeze_pool":
                # Some wake up within their lease, others when somebody else has long begun with their work.
                yield Fault(kind, pause, victim, seconds=MAX_FREEZE * lease * length)
            case "kill_pool" | "deploy":
                yield Fault(kind, pause, victim, clock=clock)
            case "kill_valkey":
                yield Fault(kind, pause, seconds=2.0 * length**2)
            case "restart_database":
                yield Fault(kind, pause, choice=mode)
            case "network":
                # Most are short: what lasts a minute hides what would have come meanwhile.
                seconds = 0.0 if network == "reset" else form.longest_cut * length**3 + 0.2
                where = "valkey" if form.database == "sqlite" else place
                yield Fault(kind, pause, victim, seconds=seconds, choice=f"{network}:{where}")
            case _:
                yield Fault(kind, pause, victim)
