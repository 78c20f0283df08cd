"""The options of an enqueue, in their final form or refused."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.test import override_settings
from django.utils import timezone

from django_agentexec import InvalidOption, Priority
from django_agentexec.tasks.options import due_time, validate_idempotency_key, validate_priority, validate_queue

NEW_YEAR = datetime(2027, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("value", [Priority.HIGH, 1, "high"])
def test_a_priority_may_be_its_number_or_name(value: Any) -> None:
    assert validate_priority(value) is Priority.HIGH


@pytest.mark.parametrize("value", [0, 2, -1, True, "1", "HIGH", None, [1]])
def test_an_unknown_priority_is_refused_with_those_there_are(value: Any) -> None:
    with pytest.raises(InvalidOption, match=r"Priority\.HIGH, Priority\.NORMAL, Priority\.LOW"):
        validate_priority(value)


@pytest.mark.parametrize("name", ["default", "a", "Slow_jobs-2.eu", "x" * 100])
def test_a_queue_name(name: str) -> None:
    assert validate_queue(name) == name


@pytest.mark.parametrize("name", ["", "x" * 101, "a b", "a:b", "{a}", "a\n", "ä", None, 1])
def test_another_queue_name_is_refused(name: Any) -> None:
    with pytest.raises(InvalidOption, match="not a queue name"):
        validate_queue(name)


@pytest.mark.parametrize("key", [None, "k", "x" * 255, "\U0001f600"])
def test_an_idempotency_key(key: str | None) -> None:
    assert validate_idempotency_key(key) == key


@pytest.mark.parametrize(
    "key", ["", "x" * 256, "x" * 1_000_000, "a\x00", "\ud800", 7, b"k"], ids=lambda k: ascii(k)[:20]
)
def test_another_idempotency_key_is_refused(key: Any) -> None:
    with pytest.raises(InvalidOption, match="Idempotency key"):
        validate_idempotency_key(key)


@pytest.mark.parametrize("delay", [None, 0, timedelta()])
def test_no_delay_is_no_due_time(delay: Any) -> None:
    assert due_time(delay, None) is None


@pytest.mark.parametrize("delay", [90, 90.0, timedelta(seconds=90)])
def test_a_delay_counts_from_now(delay: Any) -> None:
    before = timezone.now()

    due = due_time(delay, None)

    assert due is not None
    assert before <= due - timedelta(seconds=90) <= timezone.now()


def test_a_due_time_is_taken_as_it_is() -> None:
    assert due_time(None, NEW_YEAR) == NEW_YEAR


BAD_TIMES = [
    (-1, None),
    (float("nan"), None),
    (float("inf"), None),
    (10**9, None),
    (timedelta(seconds=-1), None),
    (True, None),
    ("5", None),
    (5, NEW_YEAR),
    (None, datetime(9999, 12, 31, 23, 59, tzinfo=ZoneInfo("America/New_York"))),
    (None, datetime(1, 1, 1, tzinfo=ZoneInfo("Asia/Tokyo"))),
    (None, datetime.max.replace(tzinfo=UTC)),
    (None, datetime.min.replace(tzinfo=UTC)),
    (None, NEW_YEAR.replace(tzinfo=None)),
    (None, date(2027, 1, 1)),
    (None, "2027-01-01T00:00:00Z"),
]


@pytest.mark.parametrize(("delay", "run_after"), BAD_TIMES)
def test_an_impossible_time_is_refused(delay: Any, run_after: Any) -> None:
    with pytest.raises(InvalidOption):
        due_time(delay, run_after)


@override_settings(USE_TZ=False, TIME_ZONE="America/New_York")
def test_a_project_without_time_zones_gives_naive_times() -> None:
    assert due_time(None, datetime(2027, 1, 1)) == datetime(2027, 1, 1)  # what it is about


@override_settings(USE_TZ=False, TIME_ZONE="America/New_York")
def test_an_aware_time_in_a_project_without_time_zones_becomes_its_local_time() -> None:
    assert due_time(None, NEW_YEAR) == datetime(2026, 12, 31, 19)  # what it is about
