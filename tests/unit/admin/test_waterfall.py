"""The time axis of a trace."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from django_agentexec.admin.waterfall import MIN_WIDTH, Axis

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def test_bars_are_in_proportion_to_time() -> None:
    axis = Axis([(at(0), at(5)), (at(5), at(10))])
    assert [float(axis.bar(at(0), at(5)).x), float(axis.bar(at(0), at(5)).width)] == [0, 50]
    assert [float(axis.bar(at(5), at(10)).x), float(axis.bar(at(5), at(10)).width)] == [50, 50]
    assert axis.waits == []


def test_a_long_wait_is_shortened_and_named() -> None:
    axis = Axis([(at(0), at(10)), (at(3610), at(3620))])
    assert [float(axis.bar(at(0), at(10)).width), float(axis.bar(at(3610), at(3620)).x)] == [48, 52]
    assert axis.waits == ["1 h"]
    assert float(axis.bar(at(0), at(3620)).width) == 100


def test_a_bar_is_always_visible_and_on_the_axis() -> None:
    axis = Axis([(at(0), at(100))])
    for bar in (axis.bar(at(100), at(100)), axis.bar(at(0), at(0)), axis.bar(at(-5), at(500))):
        assert float(bar.width) >= MIN_WIDTH
        assert 0 <= float(bar.x) <= 100 - float(bar.width) + 0.01
    assert float(Axis([]).bar(at(0), at(1)).x) == 0
