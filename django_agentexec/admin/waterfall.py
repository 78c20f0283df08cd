"""The time axis of a trace: where each bar begins and ends, with long waits shortened."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from .formatting import duration

LONG_WAIT = 0.2  # share of the whole from which a time without any call is shortened
SHORTENED = 0.04  # share that it has then
MIN_WIDTH = 0.6  # of a bar, so that it is visible
WIDTH = 100.0


@dataclass(frozen=True)
class Bar:
    """A bar on an axis from 0 to 100."""

    x: str
    width: str


@dataclass(frozen=True)
class _Part:
    start: float
    end: float
    at: float
    width: float


class Axis:
    """Maps times to positions from 0 to 100. `busy` are the spans of calls, which the axis shows in full."""

    def __init__(self, busy: Iterable[tuple[datetime, datetime]]) -> None:
        spans = _merged(busy)
        self.origin = spans[0][0] if spans else None
        self.waits: list[str] = []
        """The durations of the waits that are shortened."""
        self._parts = self._layout(spans) if spans else []

    def bar(self, start: datetime, end: datetime) -> Bar:
        """Return the bar of a span."""
        first, last = self._position(start), self._position(end)
        width = max(last - first, MIN_WIDTH)
        first = min(first, WIDTH - width)
        return Bar(f"{first:.2f}", f"{width:.2f}")

    def _position(self, moment: datetime) -> float:
        if self.origin is None:
            return 0.0
        seconds = (moment - self.origin).total_seconds()
        for part in self._parts:
            if seconds <= part.end:
                share = (seconds - part.start) / (part.end - part.start) if part.end > part.start else 0.0
                return part.at + max(0.0, share) * part.width
        return WIDTH

    def _layout(self, spans: Sequence[tuple[datetime, datetime]]) -> list[_Part]:
        origin = spans[0][0]
        times = [((start - origin).total_seconds(), (end - origin).total_seconds()) for start, end in spans]
        total = max(times[-1][1], 0.001)
        pieces: list[tuple[float, float, float]] = []  # start, end and weight
        shortened = 0
        for number, (start, end) in enumerate(times):
            pause = start - times[number - 1][1] if number else 0.0
            if pause > LONG_WAIT * total:
                self.waits.append(duration(pause))
                pieces.append((times[number - 1][1], start, -1.0))
                shortened += 1
            elif pause:
                pieces.append((times[number - 1][1], start, pause))
            pieces.append((start, end, end - start))
        shown = sum(weight for _, _, weight in pieces if weight > 0) or 1.0
        scale = WIDTH * (1 - SHORTENED * shortened) / shown
        parts, at = list[_Part](), 0.0
        for start, end, weight in pieces:
            width = WIDTH * SHORTENED if weight < 0 else weight * scale
            parts.append(_Part(start, end, at, width))
            at += width
        return parts


def _merged(spans: Iterable[tuple[datetime, datetime]]) -> list[tuple[datetime, datetime]]:
    found: list[tuple[datetime, datetime]] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((start, end))
    return found
