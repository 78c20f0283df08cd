"""AgentSchedule: what it refuses, how its plan follows edits, and that no Celery beat ever sends it."""

from __future__ import annotations

import subprocess
import sys
import threading
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery import Celery
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import IntegrityError, OperationalError, connections, transaction
from django.db.models import ProtectedError
from django.utils import timezone
from django_celery_beat.models import ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask, SolarSchedule
from django_celery_beat.schedulers import DatabaseScheduler

from django_agentexec import ScheduleError, background
from django_agentexec.background import PoolService
from django_agentexec.models import Activity
from django_agentexec.schedules import checks
from django_agentexec.schedules.firing import fire
from django_agentexec.schedules.models import AgentSchedule
from django_agentexec.schedules.planning import refresh
from tests.support.schedule_builders import (
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

AFTER_ALL = datetime(9999, 12, 31, 23, 59, tzinfo=ZoneInfo("America/New_York"))
BEFORE_ALL = datetime(1, 1, 1, tzinfo=ZoneInfo("Asia/Tokyo"))


def problems(**fields: Any) -> dict[str, list[str]]:
    """Return what `full_clean` says, by field."""
    if not {"crontab", "interval", "clocked", "solar"} & set(fields):
        fields["interval"] = interval()
    schedule = AgentSchedule(**{"name": "s", "task": "report", "context": {"text": "hi"}, **fields})
    try:
        schedule.full_clean()
    except ValidationError as error:
        return error.message_dict
    return {}


def test_a_sound_schedule_is_clean() -> None:
    assert problems() == {}


@pytest.mark.parametrize(
    ("fields", "where", "what"),
    [
        ({"task": "reprot"}, "task", "Did you mean 'report'?"),
        ({"task": "work", "context": {"seconds": "soon"}}, "context", "journal: Field required"),
        ({"task": "work", "context": {"seconds": "soon"}}, "context", "seconds: Input should be a valid number"),
        ({"context": []}, "context", "Input should be an object"),
        ({"metadata": [1]}, "metadata", "a JSON object"),
        ({"metadata": {"a": "\x00"}}, "metadata", "NUL"),
        ({"queue": "a b"}, "queue", "is not a queue name"),
        ({"priority": 5}, "priority", "not a valid choice"),
        ({"start_at": NOON, "expires_at": NOON}, "expires_at", "later than the start"),
        ({"start_at": AFTER_ALL}, "start_at", "limits of the calendar"),
        ({"expires_at": BEFORE_ALL}, "expires_at", "limits of the calendar"),
        ({"timezone": "Europe/Berlin"}, "timezone", "Only crontabs"),
        ({"expires_at": NOON}, "interval", "never be due"),
    ],
)
def test_what_would_fail_when_it_is_due_is_refused_by_field(fields: dict[str, Any], where: str, what: str) -> None:
    found = problems(**fields)

    assert list(found) == [where]
    assert what in " ".join(found[where])


def test_a_lock_key_that_cannot_be_made_is_refused() -> None:
    assert "lock key" in problems(task="keyed", context={"key": "x" * 600})["context"][0]


def test_exactly_one_kind_of_times_is_needed() -> None:
    assert problems(interval=None)["__all__"] == ["Choose when it is due: one of crontab, interval, clocked, solar."]
    assert set(problems(interval=interval(), crontab=crontab())) == {"interval", "crontab"}


def test_the_database_holds_exactly_one_kind_of_times() -> None:
    schedule = make_schedule()

    for fields in ({"crontab": crontab()}, {"interval": None}):
        with pytest.raises(IntegrityError), transaction.atomic():
            AgentSchedule.objects.filter(pk=schedule.pk).update(**fields)


def test_a_crontab_that_celery_cannot_read_is_refused() -> None:
    # The validators of django-celery-beat let 7 pass for Sunday; Celery does not.
    timer = CrontabSchedule.objects.create(day_of_week="7")

    assert "is never due" in problems(crontab=timer)["crontab"][0]
    with pytest.raises(ScheduleError, match="is never due"):
        AgentSchedule.objects.create(name="s", task="shout", crontab=timer)


def test_times_that_are_gone_are_refused() -> None:
    assert "4711" in problems(interval=None, crontab_id=4711)["crontab"][0]


def test_without_times_it_cannot_be_saved() -> None:
    with pytest.raises(ScheduleError, match="Set one of crontab"):
        AgentSchedule.objects.create(name="s", task="shout")


def test_an_unknown_time_zone_is_refused() -> None:
    assert "Time zone 'Mars' does not exist" in problems(crontab=crontab(), timezone="Mars")["timezone"][0]


def test_a_clocked_time_in_the_past_is_refused() -> None:
    timer = ClockedSchedule.objects.create(clocked_time=timezone.now() - MINUTE)

    assert "never be due" in problems(clocked=timer)["clocked"][0]


def test_too_short_an_interval_is_refused() -> None:
    timer = IntervalSchedule.objects.create(every=5, period="microseconds")

    assert "too short" in problems(interval=timer)["interval"][0]


def test_a_sunset_is_clean() -> None:
    assert problems(solar=SolarSchedule.objects.create(event="sunset", latitude=52, longitude=13)) == {}


def test_times_in_use_cannot_be_deleted() -> None:
    schedule = make_schedule()

    with pytest.raises(ProtectedError):
        schedule.interval.delete()


def test_saving_keeps_what_the_scheduler_wrote_meanwhile() -> None:
    schedule = make_schedule()
    fire(schedule.pk, NOON + 10 * SECOND)

    schedule.description = "read before it ran"
    schedule.save()

    schedule.refresh_from_db()
    assert (schedule.total_run_count, schedule.next_run_at) == (1, NOON + 20 * SECOND)
    assert schedule.description == "read before it ran"


def test_saving_other_times_plans_anew() -> None:
    schedule = make_schedule()

    schedule.interval = interval(1, "hours")
    schedule.save()

    schedule.refresh_from_db()
    assert timedelta(minutes=59) < schedule.next_run_at - timezone.now() <= timedelta(hours=1)


def test_enabled_again_it_has_missed_nothing() -> None:
    schedule = make_schedule(enabled=False)
    assert schedule.next_run_at is None

    schedule.enabled = True
    schedule.save()

    assert schedule.next_run_at > timezone.now()


def test_a_crontab_edited_behind_its_back_is_noticed() -> None:
    schedule = make_schedule(crontab=crontab(minute="30"))
    CrontabSchedule.objects.update(minute="45")

    refresh(NOON)

    schedule.refresh_from_db()
    assert schedule.next_run_at == NOON + 45 * MINUTE


def test_bulk_updates_are_noticed() -> None:
    schedule = make_schedule()

    AgentSchedule.objects.update(enabled=False)
    refresh(NOON + MINUTE)
    schedule.refresh_from_db()
    assert schedule.next_run_at is None

    AgentSchedule.objects.update(enabled=True)
    refresh(NOON + 2 * MINUTE)
    schedule.refresh_from_db()
    assert schedule.next_run_at == NOON + 2 * MINUTE + 10 * SECOND


def test_a_crontab_edited_into_nonsense_is_noted_until_it_is_mended() -> None:
    schedule = make_schedule(crontab=crontab(minute="30"))
    CrontabSchedule.objects.update(minute="99")
    clock = Clock(NOON)
    one = scheduler(clock)

    one.step()
    schedule.refresh_from_db()
    assert "is never due" in schedule.last_error
    assert schedule.next_run_at is None

    CrontabSchedule.objects.update(minute="10")
    clock.now += MINUTE
    one.step()
    schedule.refresh_from_db()
    assert (schedule.last_error, schedule.next_run_at) == ("", NOON + 10 * MINUTE)


def test_a_clock_that_is_put_back_does_not_stop_it_from_noticing_changes() -> None:
    schedule = make_schedule(crontab=crontab(minute="30"))
    clock = Clock(NOON)
    one = scheduler(clock)
    one.step()
    clock.now = NOON - timedelta(hours=2)
    CrontabSchedule.objects.update(minute="45")

    one.step()

    schedule.refresh_from_db()
    assert schedule.next_run_at == NOON - timedelta(minutes=75)


def test_a_missing_package_is_noted_until_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = make_schedule(solar=SolarSchedule.objects.create(event="sunset", latitude=52, longitude=13))
    AgentSchedule.objects.update(timing="")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "ephem", None)
        refresh(NOON)
        schedule.refresh_from_db()
        assert "pip install ephem" in schedule.last_error

    refresh(NOON)

    schedule.refresh_from_db()
    assert (schedule.last_error, schedule.next_run_at is None) == ("", False)


@pytest.mark.django_db(transaction=True)  # beat closes connections
def test_celery_beat_does_not_know_it() -> None:
    make_schedule(now=timezone.now() - 20 * SECOND)
    long_ago = timezone.now() - MINUTE
    PeriodicTask.objects.create(name="celery's own", task="a.task", interval=interval(1), last_run_at=long_ago)
    sent: list[str] = []
    app = Celery("beat", broker="memory://", set_as_current=False)
    app.conf.result_expires = None  # or beat adds its own task
    beat = DatabaseScheduler(app=app, lazy=True)
    beat.apply_async = lambda entry, **_: sent.append(entry.name)  # type: ignore[method-assign]
    beat.setup_schedule()

    for _ in range(3):
        beat.tick()

    assert set(beat.schedule) == {"celery's own"}
    assert set(sent) == {"celery's own"}
    assert not Activity.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_of_many_schedulers_at_once_one_runs_it() -> None:
    schedule = make_schedule()
    barrier = threading.Barrier(8)
    errors: list[Exception] = []

    def run() -> None:
        try:
            barrier.wait()
            for late in (10, 20, 30):
                fire(schedule.pk, NOON + late * SECOND)
        except Exception as error:
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while fire(schedule.pk, NOON + 30 * SECOND):
        pass  # a thread that met another did nothing, and left the rest to the next tick

    assert errors == []
    assert len(started()) == len(runs(schedule))
    assert [time for time, _ in runs(schedule)] == ["12:00:10", "12:00:20", "12:00:30"]


def test_schedules_and_activities_must_share_a_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "database", lambda: "elsewhere")

    (error,) = checks.check_database(None)

    assert "DATABASES['default'], but activities in DATABASES['elsewhere']" in error.msg


def test_without_django_celery_beat_the_app_says_what_is_missing() -> None:
    statements = (
        "import django; from django.conf import settings; "
        "settings.configure(INSTALLED_APPS=['django_agentexec', 'django_agentexec.schedules']); django.setup()"
    )
    done = subprocess.run([sys.executable, "-c", statements], capture_output=True, text=True, timeout=60)

    assert "needs 'django_celery_beat' in INSTALLED_APPS" in done.stderr


class Stumbling(PoolService):
    """A duty that fails twice, then ends itself."""

    def __init__(self) -> None:
        super().__init__("pool")
        self.steps = 0

    def step(self) -> float:
        self.steps += 1
        if self.steps == 1:
            raise OperationalError("the database is down")
        if self.steps == 2:
            raise ZeroDivisionError
        self.stop()
        return 60.0


@pytest.mark.django_db(transaction=True)  # a duty closes its connections
def test_a_duty_goes_on_after_errors(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(background, "FIRST_PAUSE", 0.01)
    duty = Stumbling()

    duty.start()
    duty.join(30)

    assert duty.steps == 3
    assert "Stumbling is waiting for the database or the queue: the database is down" in caplog.text
    assert "Stumbling failed; it will try again." in caplog.text


def test_the_configuration_is_checked(settings: Any) -> None:
    settings.AGENTEXEC = {"SCHEDULER_TIMEZONE": "Mars"}

    with pytest.raises(SystemCheckError, match="Time zone 'Mars' does not exist"):
        call_command("check")


def test_a_clocked_time_at_the_edge_of_the_calendar_is_refused() -> None:
    timer = ClockedSchedule(clocked_time=AFTER_ALL)
    schedule = AgentSchedule(name="s", task="shout", clocked=timer)

    with pytest.raises(ScheduleError, match="limits of the calendar"):
        schedule.due_after(NOON)


def test_an_interval_that_leaves_the_calendar_is_refused() -> None:
    timer = IntervalSchedule(every=3_000_000, period="days")

    with pytest.raises(ScheduleError, match=r"limits of the calendar|out of range"):
        AgentSchedule(name="s", task="shout", interval=timer).due_after(NOON, anchor=NOON)


def test_one_that_cannot_be_planned_leaves_the_others_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    faulty, good = make_schedule(name="faulty"), make_schedule(name="good")
    AgentSchedule.objects.update(timing="", next_run_at=None)
    planned = AgentSchedule.plan

    def plan(schedule: AgentSchedule, now: datetime) -> None:
        if schedule.name == "faulty":
            raise KeyError("no plan")
        planned(schedule, now)

    monkeypatch.setattr(AgentSchedule, "plan", plan)

    refresh(NOON)

    faulty.refresh_from_db()
    good.refresh_from_db()
    assert (faulty.next_run_at, good.next_run_at is None) == (None, False)
    assert "Schedule faulty cannot be planned" in caplog.text
