"""The figures of one run of the benchmarks, the source of the table and the plots."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

OWN = ("sqlite", "postgresql")
ONCE = {"list_million"}  # slow figures that are medians already


@dataclass
class Report:
    """Figures by side, figure and key, one value per run; `None` means that a limit was reached."""

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
        """Read a file that `to_json` wrote."""
        return cls(**json.loads(path.read_text()))

    def to_json(self) -> str:
        """Return the report as JSON, for `read`."""
        return json.dumps(asdict(self), indent=1) + "\n"

    def describe(self, peer: str, description: dict[str, dict[str, str]]) -> None:
        """Store the settings and versions of a peer."""
        self.peers[peer] = description

    def add(self, side: str, figure: str, figures: Mapping[str, float | None]) -> None:
        """Add the values of one run."""
        for key, value in figures.items():
            rounded = None if value is None else float(f"{value:.6g}")
            self.sides.setdefault(side, {}).setdefault(figure, {}).setdefault(key, []).append(rounded)

    def is_known(self, side: str, figure: str) -> bool:
        """Return whether further runs are skipped, since a run has reached its time limit."""
        values = self.sides.get(side, {}).get(figure, {})
        return (figure in ONCE and bool(values)) or any(None in known for known in values.values())

    def median(self, side: str, figure: str, key: str) -> float | None:
        """Return the median of the runs, or None."""
        values = self.sides.get(side, {}).get(figure, {}).get(key, [])
        numbers = [value for value in values if value is not None]
        return statistics.median(numbers) if numbers and len(numbers) == len(values) else None

    def names(self) -> list[str]:
        """Return the sides, those of this project first."""
        return [name for name in OWN if name in self.sides] + [name for name in self.peers if name in self.sides]
