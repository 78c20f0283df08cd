"""Time spans in their two largest units; admin and terminal write them in different forms."""

from __future__ import annotations

UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def largest_units(seconds: float) -> list[tuple[int, str]]:
    """Return whole seconds in their two largest units, such as `[(3, "min"), (5, "s")]`, without a second of 0."""
    left = max(0, int(seconds))
    first = next((number for number, (size, _) in enumerate(UNITS) if left >= size), len(UNITS) - 1)
    parts: list[tuple[int, str]] = []
    for size, unit in UNITS[first : first + 2]:
        if left >= size or not parts:
            parts.append((left // size, unit))
            left %= size
    return parts
