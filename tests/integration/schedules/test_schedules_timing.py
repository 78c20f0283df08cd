"""When schedules are due: intended times, intervals, changes of the clock. No database, no sleeping."""

from __future__ import annotations

import itertools
import sys
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from celery.schedules import crontab
from django.test import override_settings
from django_celery_beat.models import ClockedSchedule, CrontabSchedule, IntervalSchedule, SolarSchedule
from hypothesis import given, settings
from hypothesis import strategies as st

from django_agentexec import ScheduleError
from django_agentexec.schedules.crontabs import next_in_zone
from django_agentexec.schedules.models import AgentSchedule
from django_agentexec.schedules.timing import next_due

BERLIN, NEW_YORK = ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York")


def cron(text: str, zone: str = "UTC") -> CrontabSchedule:
    minute, hour, day_of_month, month_of_year, day_of_week = text.split()
    return CrontabSchedule(
        minute=minute,
        hour=hour,
        day_of_month=day_of_month,
        month_of_year=month_of_year,
        day_of_week=day_of_week,
        timezone=zone,
    )


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def dues(timer: CrontabSchedule | SolarSchedule, moment: datetime, count: int) -> list[datetime]:
    """Return the next due times, each computed from its predecessor, as a scheduler does."""
    found: list[datetime] = []
    for _ in range(count):
        moment = next_due(timer, moment, anchor=moment) or moment
        found.append(moment)
    return found


def local(times: list[datetime], zone: ZoneInfo) -> list[str]:
    return [time.astimezone(zone).strftime("%m-%d %H:%M %Z") for time in times]


@pytest.mark.parametrize(
    ("zone", "start", "expected"),
    [
        (BERLIN, "2026-03-27 12:00", ["03-28 02:30 CET", "03-29 03:30 CEST", "03-30 02:30 CEST"]),
        (NEW_YORK, "2026-03-06 17:00", ["03-07 02:30 EST", "03-08 03:30 EDT", "03-09 02:30 EDT"]),
    ],
    ids=["Berlin", "New York"],
)
def test_a_time_that_summer_time_leaves_out_is_due_as_much_later(
    zone: ZoneInfo, start: str, expected: list[str]
) -> None:
    assert local(dues(cron("30 2 * * *", zone.key), utc(start), 3), zone) == expected


@pytest.mark.parametrize(
    ("zone", "text", "start", "expected"),
    [
        (BERLIN, "30 2 * * *", "2026-10-23 12:00", ["10-24 02:30 CEST", "10-25 02:30 CEST", "10-26 02:30 CET"]),
        (NEW_YORK, "30 1 * * *", "2026-10-30 16:00", ["10-31 01:30 EDT", "11-01 01:30 EDT", "11-02 01:30 EST"]),
        # In New York 02:30 comes once on that day; the hour before it comes twice.
        (NEW_YORK, "30 2 * * *", "2026-10-30 16:00", ["10-31 02:30 EDT", "11-01 02:30 EST", "11-02 02:30 EST"]),
    ],
)
def test_a_time_that_comes_twice_is_due_once(zone: ZoneInfo, text: str, start: str, expected: list[str]) -> None:
    assert local(dues(cron(text, zone.key), utc(start), 3), zone) == expected


def test_a_crontab_of_every_hour_goes_on_through_the_repeated_one() -> None:
    assert local(dues(cron("*/30 * * * *", "Europe/Berlin"), utc("2026-10-24 23:59"), 6), BERLIN) == [
        "10-25 02:00 CEST",
        "10-25 02:30 CEST",
        "10-25 02:00 CET",
        "10-25 02:30 CET",
        "10-25 03:00 CET",
        "10-25 03:30 CET",
    ]


@pytest.mark.parametrize("change", ["2026-03-29 00:00", "2026-10-25 00:00"])
def test_every_five_minutes_means_every_five_minutes_across_both_changes(change: str) -> None:
    times = dues(cron("*/5 * * * *", "Europe/Berlin"), utc(change) - timedelta(hours=1), 48)

    assert {later - earlier for earlier, later in itertools.pairwise(times)} == {timedelta(minutes=5)}


def test_seen_from_inside_the_repeated_hour_the_next_run_is_ahead() -> None:
    second_pass = utc("2026-10-25 01:10")  # 02:10 for the second time

    assert local(dues(cron("30 2 * * *", "Europe/Berlin"), second_pass, 1), BERLIN) == ["10-26 02:30 CET"]
    assert local(dues(cron("30 * * * *", "Europe/Berlin"), second_pass, 1), BERLIN) == ["10-25 02:30 CET"]


def test_seen_from_just_after_the_gap_what_it_left_out_is_still_ahead() -> None:
    after_the_gap = utc("2026-03-29 01:10")  # 03:10; 02:30 did not come

    assert local(dues(cron("30 2 * * *", "Europe/Berlin"), after_the_gap, 1), BERLIN) == ["03-29 03:30 CEST"]


RULES = ["*/5 * * * *", "0 * * * *", "17,41 * * * 0,6", "*/20 * 25,29 * *", "59 * * * *"]
FIXED_RULES = ["30 2 * * *", "*/15 1-3 * * *", "0 */2 * * *", "0,30 2,3 * * 0", "45 23 * * *"]
ZONES = ["Europe/Berlin", "America/New_York", "America/Santiago", "Asia/Kolkata", "Australia/Sydney", "UTC"]
CHANGES = ["2026-03-29", "2026-10-25", "2026-03-08", "2026-11-01", "2026-04-05", "2026-09-06", "2026-10-04"]


def matches(rule: crontab, wall: datetime) -> bool:
    return (
        wall.minute in rule.minute
        and wall.hour in rule.hour
        and wall.day in rule.day_of_month
        and wall.month in rule.month_of_year
        and wall.isoweekday() % 7 in rule.day_of_week
    )


def by_looking_at_each_minute(rule: crontab, zone: ZoneInfo, start: datetime, end: datetime) -> list[datetime]:
    """Return what is due after `start`: the documented rule, written down another way."""
    due = set()
    moment = start.replace(minute=0) - timedelta(hours=2)
    while moment <= end:
        wall, before = moment.astimezone(zone), (moment - timedelta(minutes=1)).astimezone(zone)
        if matches(rule, wall) and (len(rule.hour) == 24 or not wall.fold):
            due.add(moment)
        left_out = wall.replace(tzinfo=None) - before.replace(tzinfo=None) - timedelta(minutes=1)
        for minute in range(int(left_out.total_seconds()) // 60):
            if matches(rule, before + timedelta(minutes=minute + 1)):
                due.add(moment + timedelta(minutes=minute))
        moment += timedelta(minutes=1)
    return sorted(moment for moment in due if start < moment <= end)


@settings(max_examples=60, deadline=None)
@given(
    text=st.sampled_from(RULES + FIXED_RULES),
    zone=st.sampled_from(ZONES).map(ZoneInfo),
    start=st.builds(
        lambda day, minutes: utc(f"{day} 00:00") + timedelta(minutes=minutes),
        st.sampled_from(CHANGES),
        st.integers(-1_440, 1_440),
    ),
)
def test_around_changes_of_the_clock_it_is_due_when_the_rule_says(text: str, zone: ZoneInfo, start: datetime) -> None:
    rule, end = cron(text).schedule, start + timedelta(hours=30)
    expected = by_looking_at_each_minute(rule, zone, start, end)

    found = [start]
    while (due := next_in_zone(rule, found[-1], zone)) <= end:
        found.append(due)

    assert found[1:] == expected


def every(count: int, period: str = "seconds") -> IntervalSchedule:
    return IntervalSchedule(every=count, period=period)


def test_an_interval_is_counted_from_its_anchor() -> None:
    noon = utc("2026-01-01 12:00")

    assert next_due(every(10), noon, anchor=noon) == noon + timedelta(seconds=10)
    assert next_due(every(10), noon + timedelta(seconds=17.3), anchor=noon) == noon + timedelta(seconds=20)
    assert next_due(every(10), noon - timedelta(days=1), anchor=noon) == noon


def test_an_interval_of_days_is_so_many_real_hours_across_a_change_of_the_clock() -> None:
    before = utc("2026-03-28 12:00")

    assert next_due(every(1, "days"), before, anchor=before) == utc("2026-03-29 12:00")


def test_a_week_of_missed_seconds_is_passed_over_at_once() -> None:
    start = utc("2026-01-01 00:00")

    assert next_due(every(1), start + timedelta(days=7), anchor=start) == start + timedelta(days=7, seconds=1)


def test_an_interval_below_a_second_is_refused() -> None:
    with pytest.raises(ScheduleError, match="too short"):
        next_due(every(10, "microseconds"), utc("2026-01-01 00:00"), anchor=utc("2026-01-01 00:00"))


def test_a_clocked_time_is_due_once() -> None:
    noon = utc("2026-01-01 12:00")
    timer = ClockedSchedule(clocked_time=noon)

    assert next_due(timer, noon - timedelta(days=1), anchor=noon) == noon
    assert next_due(timer, noon, anchor=noon) is None


def test_each_sunset_is_due_once() -> None:
    times = dues(SolarSchedule(event="sunset", latitude=52.52, longitude=13.405), utc("2026-06-01 00:00"), 40)

    assert all(timedelta(hours=23) < b - a < timedelta(hours=25) for a, b in itertools.pairwise(times))
    assert times[0].astimezone(BERLIN).strftime("%H") == "21"


def test_without_ephem_the_sun_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ephem", None)
    noon = utc("2026-01-01 12:00")

    with pytest.raises(ScheduleError, match="pip install ephem"):
        next_due(SolarSchedule(event="sunset", latitude=52, longitude=13), noon, anchor=noon)


@pytest.mark.parametrize("text", ["61 * * * *", "0 0 31 2 *", "x * * * *", "5, * * * *", "*/0 * * * *"])
def test_a_crontab_that_is_never_due_is_refused(text: str) -> None:
    with pytest.raises(ScheduleError, match="is never due"):
        next_due(cron(text), utc("2026-01-01 00:00"), anchor=utc("2026-01-01 00:00"))


def test_start_and_expiry_bound_the_due_times() -> None:
    schedule = AgentSchedule(
        interval=every(10),
        start_at=utc("2026-01-01 12:00"),
        expires_at=utc("2026-01-01 12:00") + timedelta(seconds=20),
    )
    schedule.plan(utc("2026-01-01 00:00"))

    assert [due.strftime("%H:%M:%S") for due in schedule.upcoming()] == ["12:00:00", "12:00:10"]


def test_the_repeat_limit_bounds_the_due_times() -> None:
    schedule = AgentSchedule(crontab=cron("0 12 * * *"), repeat=3, total_run_count=1)
    schedule.plan(utc("2026-01-01 00:00"))

    assert [due.day for due in schedule.upcoming()] == [1, 2]


def test_a_schedules_own_time_zone_replaces_its_crontabs() -> None:
    schedule = AgentSchedule(crontab=cron("0 9 * * *", "UTC"), timezone="Asia/Tokyo")
    schedule.plan(utc("2026-01-01 12:00"))

    assert schedule.next_run_at == utc("2026-01-02 00:00")
    assert schedule.upcoming(1)[0].strftime("%H:%M %Z") == "09:00 JST"


@override_settings(USE_TZ=False, TIME_ZONE="Europe/Berlin")
def test_rows_without_time_zones_hold_local_times() -> None:
    schedule = AgentSchedule(crontab=cron("0 9 * * *", "UTC"), start_at=datetime(2026, 7, 1, 12))
    schedule.plan(utc("2026-01-01 12:00"))

    assert schedule.next_run_at == datetime(2026, 7, 2, 11)
