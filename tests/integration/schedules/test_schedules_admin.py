"""The admin of schedules: who may do what, the form, the next runs, and the actions."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_agentexec.models import Activity
from django_agentexec.schedules.firing import fire
from django_agentexec.schedules.forms import example_of, schema_of
from django_agentexec.schedules.models import AgentSchedule, Origin, ScheduleRun
from django_agentexec.tasks import registry
from tests.support.schedule_builders import NOON, SECOND, crontab, interval, make_schedule

pytestmark = pytest.mark.django_db

LIST = "/admin/agentexec_schedules/agentschedule/"
ADD = f"{LIST}add/"
RUNS = "/admin/agentexec_schedules/schedulerun/"


def signed_in(*permissions: str, superuser: bool = False) -> Client:
    """Return the browser of someone on the staff who has these permissions only."""
    user = User.objects.create(username="operator", is_staff=True, is_superuser=superuser)
    for codename in permissions:
        user.user_permissions.add(
            Permission.objects.get(content_type__app_label="agentexec_schedules", codename=codename)
        )
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def browser() -> Client:
    """The browser of a superuser."""
    return signed_in(superuser=True)


def act(browser: Client, action: str, *schedules: AgentSchedule) -> str:
    """Run an action of the list, and return the page that follows."""
    data = {"action": action, "_selected_action": [schedule.pk for schedule in schedules]}
    return browser.post(LIST, data, follow=True).content.decode()


def form(**fields: Any) -> dict[str, Any]:
    """Return what a browser sends for a new schedule."""
    return {
        "name": "nightly",
        "task": "report",
        "context": '{"text": "hi"}',
        "metadata": "",
        "misfire": "skip",
        "enabled": "on",
        **fields,
    }


def errors(response: HttpResponse) -> dict[str, list[str]]:
    found: dict[str, list[str]] = response.context["adminform"].form.errors  # type: ignore[attr-defined]
    return found


def test_a_schedule_can_be_made(browser: Client) -> None:
    response = browser.post(ADD, form(crontab=crontab(minute="30").pk, timezone="Europe/Berlin"))

    assert response.status_code == 302
    schedule = AgentSchedule.objects.get()
    assert (schedule.task, schedule.context, schedule.metadata) == ("report", {"text": "hi"}, {})
    assert (schedule.origin, schedule.timezone) == (Origin.ADMIN, "Europe/Berlin")
    assert schedule.next_run_at > timezone.now()


@pytest.mark.parametrize(
    ("fields", "where", "what"),
    [
        ({"task": "work", "context": '{"seconds": "soon"}'}, "context", "journal: Field required"),
        ({"context": "{"}, "context", "valid JSON"),
        ({"task": "shoot"}, "task", "valid choice"),
        ({"metadata": "[1]"}, "metadata", "a JSON object"),
        ({"queue": "a b"}, "queue", "not a queue name"),
        ({"timezone": "Mars"}, "timezone", "valid choice"),
        ({"start_at_0": "9999-12-31", "start_at_1": "23:59"}, "start_at", "limits of the calendar"),
        ({"expires_at_0": "0001-01-01", "expires_at_1": "00:00"}, "expires_at", "limits of the calendar"),
        ({"interval": ""}, "__all__", "Choose when it is due"),
    ],
)
def test_mistakes_are_told_beside_their_field(browser: Client, fields: dict[str, Any], where: str, what: str) -> None:
    response = browser.post(ADD, form(**{"interval": interval().pk, **fields}))

    assert list(errors(response)) == [where]
    assert what in str(errors(response)[where])
    assert not AgentSchedule.objects.exists()


def test_two_kinds_of_times_are_one_too_many(browser: Client) -> None:
    response = browser.post(ADD, form(interval=interval().pk, crontab=crontab().pk))

    assert set(errors(response)) == {"interval", "crontab"}


def test_the_form_offers_tasks_and_shows_what_they_take(browser: Client) -> None:
    page = browser.get(ADD).content.decode()

    assert '<option value="report">report</option>' in page
    contexts = json.loads(re.search(r'id="agentexec-contexts"[^>]*>(.*?)</script>', page, re.DOTALL)[1])  # type: ignore[index]
    assert json.loads(contexts["work"]["example"]) == {"journal": "", "name": "", "key": "", "seconds": 0.0}
    assert '"title": "Journal"' in contexts["work"]["schema"]
    assert "agentexec_schedules/context.js" in page
    assert "http" not in re.sub(r"http://www\.w3\.org\S*|https://docs\.djangoproject\S*", "", page)


def test_times_can_be_made_on_the_way(browser: Client) -> None:
    page = browser.get(ADD).content.decode()

    for kind in ("crontab", "interval", "clocked", "solar"):
        assert f"/admin/django_celery_beat/{kind}schedule/add/" in page


def test_examples_are_valid_contexts() -> None:
    for definition in registry:
        definition.load_context(json.dumps(example_of(schema_of(definition))))


def test_the_page_shows_the_next_five_runs_in_the_schedules_time_zone(browser: Client) -> None:
    schedule = make_schedule(crontab=crontab(minute="0", hour="9"), timezone="Asia/Tokyo")

    page = browser.get(f"{LIST}{schedule.pk}/change/").content.decode()

    assert [f"{day:02} Jan 2026 09:00:00 JST" in page for day in range(1, 8)] == [False, *[True] * 5, False]


def test_an_edit_keeps_what_the_scheduler_wrote_meanwhile(browser: Client) -> None:
    schedule = make_schedule()
    fire(schedule.pk, NOON + 10 * SECOND)

    response = browser.post(f"{LIST}{schedule.pk}/change/", form(name="renamed", interval=schedule.interval_id))

    assert response.status_code == 302
    schedule.refresh_from_db()
    assert (schedule.name, schedule.total_run_count, schedule.next_run_at) == ("renamed", 1, NOON + 20 * SECOND)


def test_run_now_enqueues_and_is_logged(browser: Client) -> None:
    schedule = make_schedule()

    page = act(browser, "run_selected_now", schedule)

    activity = Activity.objects.get()
    assert str(activity.agent_id) in page
    assert ScheduleRun.objects.get().activity == activity
    assert str(activity.agent_id) in LogEntry.objects.get().change_message


def test_run_now_tells_what_is_wrong_and_runs_the_others(browser: Client) -> None:
    faulty, sound = make_schedule(name="faulty", context={"text": 5}), make_schedule(name="sound")

    page = act(browser, "run_selected_now", faulty, sound)

    assert "Schedule faulty cannot run: text: Input should be a valid string" in page
    assert Activity.objects.count() == 1
    assert LogEntry.objects.get().object_repr == "sound"


def test_schedules_are_disabled_and_enabled(browser: Client) -> None:
    schedule = make_schedule()

    act(browser, "disable_selected", schedule)
    schedule.refresh_from_db()
    assert (schedule.enabled, schedule.next_run_at) == (False, None)

    act(browser, "enable_selected", schedule)
    schedule.refresh_from_db()
    assert schedule.enabled
    assert schedule.next_run_at > timezone.now()
    assert [entry.change_message for entry in LogEntry.objects.order_by("id")] == ["Disabled.", "Enabled."]


def test_a_schedule_leads_to_its_runs_and_their_activities(browser: Client) -> None:
    schedule, other = make_schedule(), make_schedule(name="other")
    fire(schedule.pk, NOON + 10 * SECOND)
    fire(other.pk, NOON + 10 * SECOND)
    mine = schedule.runs.get().activity_id

    page = browser.get(f"{LIST}{schedule.pk}/change/").content.decode()
    link = f"{RUNS}?schedule__id__exact={schedule.pk}"
    assert link in page
    history = browser.get(link).content.decode()

    assert str(mine) in history
    assert str(other.runs.get().activity_id) not in history
    assert "queued" in history.lower()


def test_errors_and_ends_are_shown_in_the_list(browser: Client) -> None:
    faulty = make_schedule(name="faulty", context={"text": 5})
    fire(faulty.pk, NOON + 10 * SECOND)
    make_schedule(name="over", expires_at=NOON + SECOND)
    make_schedule(name="off", enabled=False)

    page = browser.get(LIST).content.decode()

    assert "error: text: Input should be a valid string" in page
    assert "over: no due time is left" in page
    assert "disabled" in page


def test_a_schedule_of_the_code_says_how_long_edits_last(browser: Client) -> None:
    schedule = make_schedule(origin=Origin.CODE, digest="d")

    assert "until its definition in the code changes" in browser.get(f"{LIST}{schedule.pk}/change/").content.decode()


def test_a_task_that_is_gone_can_still_be_seen(browser: Client) -> None:
    schedule = make_schedule(task="gone")

    page = browser.get(f"{LIST}{schedule.pk}/change/").content.decode()

    assert '<option value="gone" selected>gone</option>' in page


def test_a_schedule_is_deleted_with_its_history() -> None:
    schedule = make_schedule()
    fire(schedule.pk, NOON + 10 * SECOND)
    browser = signed_in("view_agentschedule", "delete_agentschedule")

    assert browser.post(f"{LIST}{schedule.pk}/delete/", {"post": "yes"}).status_code == 302

    assert not ScheduleRun.objects.exists()
    assert Activity.objects.count() == 1


def test_without_permissions_nothing_is_seen() -> None:
    browser = signed_in()

    assert browser.get(LIST).status_code == 403
    assert browser.get(ADD).status_code == 403
    assert browser.get(RUNS).status_code == 403


def test_who_may_only_look_cannot_act() -> None:
    schedule = make_schedule()
    browser = signed_in("view_agentschedule", "view_schedulerun")

    act(browser, "run_selected_now", schedule)
    act(browser, "disable_selected", schedule)
    response = browser.post(f"{LIST}{schedule.pk}/change/", form(interval=schedule.interval_id))

    assert response.status_code == 403
    assert browser.get(f"{LIST}{schedule.pk}/change/").status_code == 200
    assert browser.get(RUNS).status_code == 200
    schedule.refresh_from_db()
    assert (schedule.enabled, schedule.name) == (True, "s")
    assert not Activity.objects.exists()


def test_to_run_now_takes_a_permission_of_its_own() -> None:
    schedule = make_schedule()
    act(signed_in("view_agentschedule", "run_agentschedule"), "run_selected_now", schedule)

    assert Activity.objects.count() == 1


def test_the_history_cannot_be_changed(browser: Client) -> None:
    schedule = make_schedule()
    fire(schedule.pk, NOON + 10 * SECOND)
    run = schedule.runs.get()

    assert browser.get(f"{RUNS}add/").status_code == 403
    assert browser.post(f"{RUNS}{run.pk}/delete/", {"post": "yes"}).status_code == 403


def test_the_list_takes_the_same_number_of_queries_for_any_number(browser: Client) -> None:
    def count() -> int:
        with CaptureQueriesContext(connection) as queries:
            browser.get(LIST)
        return len(queries)

    make_schedule(name="a")
    few = count()
    for number in range(5):
        make_schedule(name=str(number), crontab=crontab(minute=str(number)))

    assert count() == few


@pytest.mark.parametrize("address", [LIST, RUNS])
@pytest.mark.parametrize("query", ["task=%00", "task__exact=a%00", "q=%00"])
def test_a_filter_that_no_database_can_hold_matches_nothing(browser: Client, address: str, query: str) -> None:
    make_schedule()

    with CaptureQueriesContext(connection) as queries:
        response = browser.get(f"{address}?{query}", follow=True)

    assert response.status_code == 200
    assert not any("\x00" in each["sql"] for each in queries)
    assert not response.context.get("cl") or not response.context["cl"].result_list
