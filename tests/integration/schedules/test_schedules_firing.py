"""What happens at a due time, and when it was missed. Time is set by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from unittest.mock import patch

import pytest
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django_celery_beat.models import ClockedSchedule

from django_agentexec import InvalidContext, QueueUnavailable
from django_agentexec.models import Activity
from django_agentexec.queues import get_queue
from django_agentexec.schedules import firing
from django_agentexec.schedules import scheduler as scheduler_module
from django_agentexec.schedules.firing import fire, prune_runs, run_now
from django_agentexec.schedules.models import AgentSchedule, Misfire, ScheduleRun
from tests.support.activity_rows import claimed_ids
from tests.support.schedule_builders import (
    HOUR,
    MINUTE,
    NOON,
    SECOND,
    Clock,
    crontab,
    interval,
    make_schedule,
    runs,
    scheduler,
    started,
)

pytestmark = pytest.mark.django_db


def test_at_its_due_time_it_enqueues_the_task(
    django_capture_on_commit_callbacks: Callable[..., Iterator[None]],
) -> None:
    schedule = make_schedule(queue="slow", priority=1, metadata={"org": 7})

    with django_capture_on_commit_callbacks(execute=True):
        assert fire(schedule.pk, NOON + 10 * SECOND)

    activity = Activity.objects.get()
    assert (activity.agent_type, activity.context, activity.metadata) == ("shout", {"text": "hi"}, {"org": 7})
    assert (activity.queue, activity.priority) == ("slow", 1)
    assert claimed_ids(queue="slow") == [activity.agent_id]
    schedule.refresh_from_db()
    assert (schedule.last_run_at, schedule.total_run_count) == (NOON + 10 * SECOND, 1)
    assert ScheduleRun.objects.get().activity == activity


def test_before_its_due_time_it_does_nothing() -> None:
    schedule = make_schedule()

    assert not fire(schedule.pk, NOON + 9.9 * SECOND)

    assert started() == []


def test_the_next_run_is_counted_from_the_intended_time() -> None:
    schedule = make_schedule()

    for late in (10.4, 20.9, 33.3):
        fire(schedule.pk, NOON + late * SECOND)

    assert [time for time, _ in runs(schedule)] == ["12:00:10", "12:00:20", "12:00:30"]


def test_a_due_time_that_was_run_is_not_run_again() -> None:
    schedule = make_schedule()
    fire(schedule.pk, NOON + 10 * SECOND)
    AgentSchedule.objects.update(next_run_at=NOON + 10 * SECOND)

    assert fire(schedule.pk, NOON + 11 * SECOND)

    assert len(started()) == 1
    assert claimed_ids() == []  # nor is it pushed
    schedule.refresh_from_db()
    assert (schedule.next_run_at, schedule.total_run_count) == (NOON + 20 * SECOND, 1)


def test_all_due_times_within_the_grace_period_are_run() -> None:
    schedule = make_schedule()
    clock = Clock(NOON + 35 * SECOND)

    pause = scheduler(clock).step()

    assert [time for time, _ in runs(schedule)] == ["12:00:10", "12:00:20", "12:00:30"]
    assert pause == 5.0


def test_missed_runs_are_skipped() -> None:
    schedule = make_schedule(crontab=crontab(minute="0"))

    scheduler(Clock(NOON + 3.5 * HOUR)).step()

    assert runs(schedule) == [("13:00:00", "skipped")]
    assert started() == []
    schedule.refresh_from_db()
    assert schedule.next_run_at == NOON + 4 * HOUR


def test_after_missed_runs_what_is_due_in_time_runs() -> None:
    schedule = make_schedule(crontab=crontab(minute="0"))

    scheduler(Clock(NOON + 3 * HOUR + 30 * SECOND)).step()

    assert runs(schedule) == [("13:00:00", "skipped"), ("15:00:00", "due")]


def test_missed_runs_are_caught_up_by_one() -> None:
    schedule = make_schedule(crontab=crontab(minute="0"), misfire=Misfire.CATCH_UP)

    scheduler(Clock(NOON + 3.5 * HOUR)).step()

    assert runs(schedule) == [("13:00:00", "catch_up")]
    assert len(started()) == 1
    schedule.refresh_from_db()
    assert schedule.next_run_at == NOON + 4 * HOUR


def test_a_run_that_is_due_in_time_catches_up_as_well() -> None:
    make_schedule(crontab=crontab(minute="0"), misfire=Misfire.CATCH_UP)

    scheduler(Clock(NOON + 3 * HOUR + 30 * SECOND)).step()

    assert len(started()) == 1


def test_what_has_expired_is_not_caught_up() -> None:
    schedule = make_schedule(misfire=Misfire.CATCH_UP, expires_at=NOON + 15 * SECOND)

    scheduler(Clock(NOON + HOUR)).step()

    assert runs(schedule) == [("12:00:10", "skipped")]


def test_an_interval_stays_aligned_after_missed_runs() -> None:
    schedule = make_schedule(interval=interval(7, "minutes"))

    scheduler(Clock(NOON + HOUR)).step()

    schedule.refresh_from_db()
    assert schedule.next_run_at == NOON + 63 * MINUTE


def test_the_repeat_limit_ends_it() -> None:
    schedule = make_schedule(repeat=2)

    scheduler(Clock(NOON + 55 * SECOND)).step()

    schedule.refresh_from_db()
    assert (len(started()), schedule.total_run_count, schedule.next_run_at) == (2, 2, None)


def test_the_expiry_ends_it() -> None:
    schedule = make_schedule(expires_at=NOON + 20 * SECOND)

    scheduler(Clock(NOON + 55 * SECOND)).step()

    assert [time for time, _ in runs(schedule)] == ["12:00:10"]


def test_a_clocked_schedule_runs_once() -> None:
    schedule = make_schedule(clocked=ClockedSchedule.objects.create(clocked_time=NOON + SECOND))

    scheduler(Clock(NOON + 5 * SECOND)).step()
    scheduler(Clock(NOON + HOUR)).step()

    assert runs(schedule) == [("12:00:01", "due")]


def test_a_clocked_schedule_that_was_missed_may_be_caught_up() -> None:
    timer = ClockedSchedule.objects.create(clocked_time=NOON + SECOND)
    make_schedule(clocked=timer, misfire=Misfire.CATCH_UP)

    scheduler(Clock(NOON + HOUR)).step()

    assert len(started()) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"task": "shoot"}, "Did you mean 'shout'?"),
        ({"context": {"text": 5}}, "text: Input should be a valid string"),
        ({"queue": "a b"}, "is not a queue name"),
    ],
)
def test_a_faulty_schedule_says_so_and_leaves_the_others_alone(fields: dict[str, object], message: str) -> None:
    faulty = make_schedule(name="faulty", **fields)
    sound = make_schedule(name="sound")

    scheduler(Clock(NOON + 15 * SECOND)).step()

    faulty.refresh_from_db()
    assert message in faulty.last_error
    assert message in faulty.runs.get().error
    assert (faulty.total_run_count, faulty.next_run_at) == (0, NOON + 20 * SECOND)
    assert [run.activity.agent_type for run in sound.runs.all()] == ["shout"]


def test_the_next_good_run_clears_the_error() -> None:
    schedule = make_schedule(context={"text": 5})
    fire(schedule.pk, NOON + 10 * SECOND)
    AgentSchedule.objects.update(context={"text": "mended"})

    fire(schedule.pk, NOON + 20 * SECOND)

    schedule.refresh_from_db()
    assert schedule.last_error == ""
    assert started() == [{"text": "mended"}]


def test_a_validator_that_fails_in_its_own_way_is_one_schedules_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = make_schedule()
    monkeypatch.setattr(firing, "load_context", lambda *_: 1 / 0)

    scheduler(Clock(NOON + 10 * SECOND)).step()

    schedule.refresh_from_db()
    assert schedule.last_error == "ZeroDivisionError: division by zero"


def test_an_unexpected_error_is_one_schedules_trouble(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    faulty, _ = make_schedule(name="faulty"), make_schedule(name="good")
    fire = scheduler_module.fire

    def fire_or_fail(schedule_id: int, now: datetime) -> bool:
        if schedule_id == faulty.pk:
            raise OverflowError("date value out of range")
        return fire(schedule_id, now)

    monkeypatch.setattr(scheduler_module, "fire", fire_or_fail)

    scheduler(Clock(NOON + 10 * SECOND)).step()

    assert len(started()) == 1
    assert f"Schedule {faulty.pk} cannot run" in caplog.text


def test_a_database_that_refuses_costs_no_run() -> None:
    schedule = make_schedule()
    clock = Clock(NOON + 10 * SECOND)

    with patch.object(firing, "enqueue", side_effect=OperationalError("database is locked")):
        assert scheduler(clock).step() == 1.0
    scheduler(clock).step()

    assert runs(schedule) == [("12:00:10", "due")]
    assert len(started()) == 1


def test_without_redis_it_enqueues_into_the_database() -> None:
    make_schedule()

    with patch.object(type(get_queue()), "try_acquire_leadership", side_effect=QueueUnavailable("away")):
        scheduler(Clock(NOON + 10 * SECOND)).step()

    assert len(started()) == 1


def test_it_sleeps_until_the_next_due_time_or_the_interval() -> None:
    make_schedule(interval=interval(3))
    clock = Clock(NOON)
    one = scheduler(clock)

    assert one.step() == 3.0
    clock.now = NOON + 3 * SECOND
    assert one.step() == 3.0
    AgentSchedule.objects.update(enabled=False)
    clock.now = NOON + 4 * SECOND
    assert one.step() == 5.0


def test_who_does_not_lead_looks_a_moment_later_and_takes_over() -> None:
    schedule = make_schedule()
    clock = Clock(NOON)
    leader, other = scheduler(clock, "leader"), scheduler(clock, "other")
    leader.step()
    clock.now = NOON + 10 * SECOND

    assert other.step() == 0.5
    assert runs(schedule) == []
    clock.now += 0.5 * SECOND
    other.step()

    assert runs(schedule) == [("12:00:10", "due")]


def test_what_only_newer_code_knows_is_left_to_it_for_a_moment() -> None:
    schedule = make_schedule()
    clock = Clock(NOON + 10 * SECOND)
    old, new = scheduler(clock, "old", tasks=[]), scheduler(clock, "new")

    assert old.step() == 5.0
    assert runs(schedule) == []
    clock.now += 0.5 * SECOND
    new.step()

    assert runs(schedule) == [("12:00:10", "due")]
    assert len(started()) == 1


def test_many_schedules_are_run_in_one_step() -> None:
    timer = interval()
    for number in range(120):
        make_schedule(name=str(number), interval=timer)

    scheduler(Clock(NOON + 10 * SECOND)).step()

    assert len(started()) == 120


def test_an_idle_look_is_two_queries() -> None:
    make_schedule()
    one = scheduler(Clock(NOON))
    one.step()

    with CaptureQueriesContext(connection) as queries:
        one.step()

    assert len(queries) == 2


def test_a_run_is_six_queries_at_most() -> None:
    schedule = make_schedule()

    with CaptureQueriesContext(connection) as queries:
        fire(schedule.pk, NOON + 10 * SECOND)

    # The schedule; the activity, its first log line, the run; the schedule's times, and the next of them.
    statements = [query["sql"].split()[0] for query in queries if "SAVEPOINT" not in query["sql"]]
    # PostgreSQL writes activity and line by one.
    activity = ["WITH"] if connection.vendor == "postgresql" else ["INSERT", "INSERT"]
    assert statements == ["SELECT", *activity, "INSERT", "SELECT", "UPDATE"]


def test_by_hand_it_runs_besides_its_times_and_its_limit() -> None:
    schedule = make_schedule(repeat=1)

    handle = run_now(schedule)

    run = ScheduleRun.objects.get()
    assert (run.activity_id, run.kind) == (handle.agent_id, "manual")
    schedule.refresh_from_db()
    assert (schedule.total_run_count, schedule.next_run_at) == (0, NOON + 10 * SECOND)
    assert timezone.now() - schedule.last_run_at < timedelta(minutes=1)


def test_by_hand_a_faulty_schedule_raises_and_leaves_nothing() -> None:
    schedule = make_schedule(context={"text": 5})

    with pytest.raises(InvalidContext, match="text: "):
        run_now(schedule)

    assert not ScheduleRun.objects.exists()


def test_the_history_is_bounded(settings: object) -> None:
    settings.AGENTEXEC = {"SCHEDULER_KEEP_RUNS": 2}  # type: ignore[attr-defined]
    schedule, other = make_schedule(name="a"), make_schedule(name="b")
    for one in (schedule, schedule, schedule, other):
        one.refresh_from_db()
        fire(one.pk, one.next_run_at)

    assert prune_runs() == 1

    assert [time for time, _ in runs(schedule)] == ["12:00:20", "12:00:30"]
    assert len(runs(other)) == 1
    assert Activity.objects.count() == 4
