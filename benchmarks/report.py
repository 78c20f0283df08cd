"""All figures of one run of the benchmarks; what the table and the plots are made of."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

OWN = ("sqlite", "postgresql")
ONCE = {"list_million"}  # medians in themselves, and long


@dataclass
class Report:
    """Figures by side, figure and key, one value per run; a `None` stands for a limit that was reached."""

    at: str
    runs: int
    quick: bool
    machine: dict[str, Any]
    versions: dict[str, str]
    peers: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)
    sides: dict[str, dict[str, dict[str, list[float | None]]]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    minutes: float = 0.0

    @classmethod
    def read(cls, path: Path) -> Report:
        """Read what `to_json` wrote."""
        return cls(**json.loads(path.read_text()))

    def to_json(self) -> str:
        """Return a text that `read` understands."""
        return json.dumps(asdict(self), indent=1) + "\n"

    def describe(self, peer: str, description: dict[str, dict[str, str]]) -> None:
        """Keep a peer's settings and versions."""
        self.peers[peer] = description

    def add(self, side: str, figure: str, figures: Mapping[str, float | None]) -> None:
        """Add what one run measured."""
        for key, value in figures.items():
            rounded = None if value is None else float(f"{value:.6g}")
            self.sides.setdefault(side, {}).setdefault(figure, {}).setdefault(key, []).append(rounded)

    def is_known(self, side: str, figure: str) -> bool:
        """Whether further runs are spared: a limit that was reached once is waited for only once."""
        values = self.sides.get(side, {}).get(figure, {})
        return (figure in ONCE and bool(values)) or any(None in known for known in values.values())

    def median(self, side: str, figure: str, key: str) -> float | None:
        """Return the median of the runs, if there is one."""
        values = self.sides.get(side, {}).get(figure, {}).get(key, [])
        numbers = [value for value in values if value is not None]
        return statistics.median(numbers) if numbers and len(numbers) == len(values) else None

    def names(self) -> list[str]:
        """Return the sides, this project's first."""
        return [name for name in OWN if name in self.sides] + [name for name in self.peers if name in self.sides]
