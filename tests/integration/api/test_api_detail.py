"""One activity over REST: its log, its result, and waiting for it to change."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection, connections
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import resolve

from django_agentexec import activity
from django_agentexec.api import waiting
from django_agentexec.ids import uuid7
from django_agentexec.live.reading import MAX_LINES
from django_agentexec.models import Activity, ActivityLog
from tests.support.activity_rows import fail, start
from tests.support.pool_process import until
from tests.support.rest_api import POLICY, admin, client, member, staff
from tests.support.waits import awaited
from tests.testapp.agents import Text, shout

rows = pytest.mark.django_db
committed = pytest.mark.django_db(transaction=True)


def url(agent_id: object, what: str = "") -> str:
    return f"/agents/activities/{agent_id}/{what}"


def failed() -> UUID:
    run = shout.enqueue(Text(text="x")).agent_id
    start(run)
    fail(run, error="RuntimeError: no", traceback="Traceback of a server")
    return run


# Detail


@rows
def test_a_detail_contains_all_fields() -> None:
    run = activity.create("import", "Waiting", context={"page": 3})
    activity.update(run, "Reading", percentage=30)
    activity.add_usage(run, {"input_tokens": 7})

    detail = client(admin()).get(url(run)).json()

    assert [(line["message"], line["status"], line["percentage"]) for line in detail["logs"]] == [
        ("Waiting", "queued", 0),
        ("Reading", "running", 30),
    ]
    wanted = {"status": "running", "percentage": 30, "attempt": 1, "usage": {"input_tokens": 7}, "context": {"page": 3}}
    assert {key: detail[key] for key in wanted} == wanted
    assert detail["created_at"] <= detail["updated_at"]


@rows
def test_a_client_asks_for_the_lines_that_it_does_not_have() -> None:
    run = activity.create("import", "first")
    last = ActivityLog.objects.get(activity_id=run).pk
    activity.update(run, "second")

    detail = client(admin()).get(url(run), {"after": last}).json()

    assert [line["message"] for line in detail["logs"]] == ["second"]


@rows
def test_a_long_log_comes_in_parts() -> None:
    run = activity.create("import", "0")
    line = ActivityLog.objects.get(activity_id=run)
    columns = {"activity_id": run, "status": line.status, "attempt": line.attempt, "created_at": line.created_at}
    ActivityLog.objects.bulk_create(ActivityLog(**columns, message=str(n)) for n in range(1, 2 * MAX_LINES))
    who, lines, more = client(admin()), [], True

    while more:
        part = who.get(url(run), {"after": lines[-1]["id"] if lines else 0}).json()
        assert len(part["logs"]) == MAX_LINES
        lines, more = lines + part["logs"], part["has_more_logs"]

    assert [line["message"] for line in lines] == [str(number) for number in range(2 * MAX_LINES)]


@rows
def test_of_a_long_log_the_last_lines_come_first() -> None:
    """Clients of agentexec take the status from the last line."""
    run = activity.create("import", "0")
    line = ActivityLog.objects.get(activity_id=run)
    columns = {"activity_id": run, "status": line.status, "attempt": line.attempt, "created_at": line.created_at}
    ActivityLog.objects.bulk_create(ActivityLog(**columns, message=str(n)) for n in range(1, MAX_LINES + 200))
    activity.complete(run, "done")
    who = client(admin())

    detail, short = who.get(url(run)).json(), who.get(url(activity.create("import", "only"))).json()

    assert len(detail["logs"]) == MAX_LINES
    assert (detail["logs"][-1]["message"], detail["logs"][-1]["status"]) == ("done", "complete")
    assert [line["id"] for line in detail["logs"]] == sorted(line["id"] for line in detail["logs"])
    assert (detail["has_earlier_logs"], detail["has_more_logs"]) == (True, False)
    assert (short["has_earlier_logs"], len(short["logs"])) == (False, 1)
    assert who.get(url(run), {"after": 0}).json()["logs"][0]["message"] == "0"


@rows
def test_tracebacks_require_the_monitor_permission() -> None:
    run = failed()
    Activity.objects.filter(agent_id=run).update(metadata={"organization_id": "org-1"})

    with override_settings(AGENTEXEC={"POLICY": POLICY}):
        theirs = client(member("org-1")).get(url(run)).json()
        ours = client(admin()).get(url(run)).json()

    neutral = "RuntimeError: An internal error occurred."
    assert (theirs["error"], theirs["traceback"], theirs["worker"]) == (neutral, "", "")
    assert {line["traceback"] for line in theirs["logs"]} == {""}
    assert (ours["traceback"], ours["worker"]) == ("Traceback of a server", "w")
    assert ours["logs"][-1]["traceback"] == "Traceback of a server"


@rows
@pytest.mark.parametrize("agent_id", [uuid4(), "nobody", "0", "%00"])
def test_there_is_no_such_activity(agent_id: object) -> None:
    answer = client(admin()).get(url(agent_id))

    assert answer.status_code == 404
    assert answer["Content-Type"] == "application/json"


@rows
@override_settings(AGENTEXEC={"POLICY": POLICY})
@pytest.mark.parametrize("what", ["", "result/", "events/"])
def test_another_tenants_activity_does_not_exist(what: str) -> None:
    theirs = activity.create("import", metadata={"organization_id": "org-2"})

    assert client(member("org-1")).get(url(theirs, what)).status_code == 404


@rows
def test_the_number_of_queries_does_not_depend_on_the_length_of_the_log() -> None:
    run, who, counts = activity.create("import"), client(admin()), []
    for lines in (1, 30):
        for number in range(lines):
            activity.update(run, f"Step {number}")
        with CaptureQueriesContext(connection) as queries:
            assert who.get(url(run)).status_code == 200
        counts.append(len(queries))

    # Session, user, activity, log.
    assert counts == [4, 4]


@rows
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("wait", value) for value in ("-1", "31", "nan", "1_0", "+1", "1e999")),
        *(
            ("after", value)
            for value in ("x", "-1", "1_0", "1.0", "\N{ARABIC-INDIC DIGIT ONE}", "9223372036854775808", "9" * 5_000)
        ),
        ("to", "1"),
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_an_impossible_parameter_is_named(name: str, value: str) -> None:
    answer = client(admin()).get(url(activity.create("import")), {name: value})

    assert answer.status_code == 400
    assert value[:80] in answer.json()[name][0] or name in answer.json()[name][0]


# Result


@rows
@pytest.mark.parametrize("result", [None, 0, "", "text", [1, {"a": None}], {"title": "x"}])
def test_a_result_is_the_stored_json(result: Any) -> None:
    run = activity.create("import")
    activity.complete(run, result=result)

    answer = client(admin()).get(url(run, "result/"))

    assert (answer.status_code, answer["Content-Type"]) == (200, "application/json")
    assert answer.json() == result


@rows
def test_without_a_result_the_response_contains_the_status() -> None:
    waiting_, running, bad, gone = (
        shout.enqueue(Text()).agent_id,
        activity.create("import"),
        failed(),
        activity.create("x"),
    )
    activity.update(running, "Reading")
    activity.cancel(gone)
    who = client(admin())

    refusals = {}
    for run in (waiting_, running, bad, gone):
        answer = who.get(url(run, "result/"))
        assert answer.status_code == 409
        refusals[answer.json()["status"]] = (answer.json()["reason"], answer.has_header("Retry-After"))
    assert refusals == {
        "queued": ("still queued", True),
        "running": ("still running", True),
        "error": ("ended in error", False),
        "canceled": ("canceled", False),
    }
    assert "RuntimeError: no" in who.get(url(bad, "result/")).json()["detail"]


@rows
def test_a_pruned_activity_is_gone() -> None:
    pruned, never = uuid7(), uuid4()
    activity.create("import")
    who = client(admin())

    assert who.get(url(pruned, "result/")).status_code == 410
    assert who.get(url(uuid7(), "result/")).status_code == 404
    assert who.get(url(never, "result/")).status_code == 404


@rows
@override_settings(AGENTEXEC={"POLICY": POLICY})
def test_the_age_of_the_oldest_activity_requires_the_monitor_permission() -> None:
    older, theirs = uuid7(), activity.create("import", metadata={"organization_id": "org-2"})
    activity.create("import", metadata={"organization_id": "org-1"})
    who = client(member("org-1"))

    assert [who.get(url(run, "result/")).status_code for run in (older, theirs, uuid7())] == [404, 404, 404]


# Waiting


@pytest.fixture
def elsewhere() -> Iterator[Callable[[Callable[[], object]], None]]:
    """Run things in other threads, as other processes would; their errors fail the test."""
    threads: list[threading.Thread] = []
    errors: list[BaseException] = []

    def run(function: Callable[[], object]) -> None:
        def guarded() -> None:
            try:
                function()
            except BaseException as error:
                errors.append(error)
            finally:
                connections.close_all()

        threads.append(threading.Thread(target=guarded))
        threads[-1].start()

    yield run
    for thread in threads:
        thread.join(30)
    assert not errors


@committed
def test_a_waiting_client_hears_of_the_end_at_once(
    elsewhere: Callable[[Callable[[], object]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "POLL_INTERVAL", 30.0)  # so that only the notification wakes it
    run, who = shout.enqueue(Text()).agent_id, client(admin())

    def cancel() -> None:
        until(lambda: run in awaited(), "the client waits")
        activity.cancel(run)

    elsewhere(cancel)
    started = time.monotonic()
    detail = who.get(url(run), {"wait": "20"}).json()

    assert detail["status"] == "canceled"
    assert time.monotonic() - started < 10


@committed
def test_a_waiting_client_hears_of_a_start(elsewhere: Callable[[Callable[[], object]], None]) -> None:
    run, who = shout.enqueue(Text()).agent_id, client(admin())

    def begin() -> None:
        until(lambda: run in awaited(), "the client waits")
        start(run)

    elsewhere(begin)

    assert who.get(url(run), {"wait": "20"}).json()["status"] == "running"


@committed
def test_with_after_a_new_line_is_a_change(elsewhere: Callable[[Callable[[], object]], None]) -> None:
    run, who = activity.create("import", "first"), client(admin())
    activity.update(run, "second")
    last = ActivityLog.objects.filter(activity_id=run).latest("id").pk

    def report() -> None:
        until(lambda: run in awaited(), "the client waits")
        activity.update(run, "third")

    elsewhere(report)
    detail = who.get(url(run), {"wait": "20", "after": last}).json()

    assert [line["message"] for line in detail["logs"]] == ["third"]


@rows
def test_a_wait_ends_at_once_for_a_finished_activity_or_a_newer_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "watching", lambda *_: pytest.fail("it waited"))
    over, changed, who = activity.create("import"), activity.create("import"), client(admin())
    activity.cancel(over)

    assert who.get(url(over), {"wait": "20"}).json()["status"] == "canceled"
    assert who.get(url(changed), {"wait": "20", "after": "0"}).json()["logs"]


@committed
def test_without_a_change_the_present_state_is_answered_in_the_end() -> None:
    run, who = activity.create("import"), client(admin())

    assert who.get(url(run), {"wait": "0.01"}).json()["status"] == "queued"


@committed
def test_a_waiting_client_holds_no_connection(
    elsewhere: Callable[[Callable[[], object]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with ATOMIC_REQUESTS, which would open a transaction around the view."""
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    run, who, open_connections = activity.create("import"), client(admin()), []
    wait = threading.Event.wait

    def look(self: threading.Event, timeout: float | None = None) -> bool:
        if threading.current_thread() is threading.main_thread() and timeout is not None:
            open_connections.append(connection.connection)
        return wait(self, timeout)

    def cancel() -> None:
        until(lambda: open_connections, "the client waits")
        activity.cancel(run)

    monkeypatch.setattr(threading.Event, "wait", look)
    elsewhere(cancel)

    assert who.get(url(run), {"wait": "20"}).json()["status"] == "canceled"
    assert set(open_connections) == {None}


@rows
def test_no_view_is_wrapped_into_a_transaction() -> None:
    assert "default" in resolve("/agents/tasks/x/").func._non_atomic_requests
    assert "default" in resolve("/agents/activities/").func._non_atomic_requests


@rows
def test_a_wait_for_an_invisible_activity_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "watching", lambda *_: pytest.fail("it waited"))
    run = activity.create("import")

    assert client(staff("plain")).get(url(run), {"wait": "20"}).status_code == 403
