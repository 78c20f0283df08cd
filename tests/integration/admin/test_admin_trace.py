"""The trace on the page of an activity: its rows, their content on demand, filters, forks and fresh retries."""

from __future__ import annotations

import re
import time
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from agents.testing import ScriptedModel
from django.db import connection
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_agentexec import activity
from django_agentexec.models import Activity, AgentCall, Approval, CallKind, CallState, Status
from django_agentexec.testing import drain
from tests.support.activity_rows import start
from tests.support.recorded_calls import DONE, Empty, add_call, call, clerk, run, say, two_look_ups
from tests.support.rest_api import admin, staff

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("durable_tasks")]

LIST = "/admin/agentexec/activity/"


def browser(user: Any = None) -> Client:
    client = Client()
    client.force_login(user or admin())
    return client


def page(row: Activity, path: str = "change/", user: Any = None, **parameters: Any) -> str:
    response = browser(user).get(f"{LIST}{row.pk}/{path}", parameters)
    assert response.status_code == 200, response
    return response.content.decode()


def test_the_page_shows_the_calls_as_a_tree_without_their_content() -> None:
    row = run(two_look_ups())
    text = page(row)
    assert [re.sub(r"\W", "", kind) for kind in re.findall(r'ae-kind">(\w+)<', text)] == [
        *("Agent", "Model", "Tool", "Model", "Tool", "Model"),
    ]
    assert "Acme is fine" not in text
    assert "style=" not in text.split("data-trace")[1].split("</section>")[0]


def test_the_content_of_a_call_is_loaded_on_demand() -> None:
    row = run(two_look_ups())
    tool = AgentCall.objects.of(row.agent_id).get(call_id="1")
    part = page(row, f"call/{tool.id}/", part=1)
    assert "Acme is fine" in part
    assert "&quot;name&quot;: &quot;Acme&quot;" in part
    assert "<html" not in part
    assert "<html" in page(row, f"call/{tool.id}/")
    assert browser().get(f"{LIST}{row.pk}/call/{tool.id}/?format=json").json()["output"] == "Acme is fine"
    model = AgentCall.objects.of(row.agent_id).filter(kind=CallKind.MODEL).first()
    assert model is not None
    assert "Calls: look_up" in page(row, f"call/{model.id}/", part=1)


def test_calls_of_another_activity_are_not_found() -> None:
    row, other = run(two_look_ups()), Activity.objects.get(pk=activity.create("t"))
    foreign = AgentCall.objects.of(row.agent_id)[0]
    for path in (f"call/{foreign.id}/", f"fork/{foreign.id}/"):
        assert browser().get(f"{LIST}{other.pk}/{path}").status_code == 404


def test_content_is_text_and_never_markup() -> None:
    row = Activity.objects.get(pk=activity.create("t"))
    made = add_call(row, CallKind.TOOL, name="<b>x</b>", output="<script>alert(1)</script>", error="<i>no</i>")
    for text in (page(row), page(row, f"call/{made.id}/", part=1)):
        assert "<script>alert" not in text
        assert "<b>x</b>" not in text
        assert "<i>no</i>" not in text


def test_marks_name_what_happened() -> None:
    row = Activity.objects.get(pk=activity.create("t"))
    Activity.objects.filter(pk=row.pk).update(status=Status.RUNNING, fence=2)
    row.refresh_from_db()
    add_call(row, CallKind.AGENT, agent="Clerk", state=CallState.STARTED)
    add_call(row, CallKind.MODEL, name="large", fence=1, cost=Decimal("0.0142"), input_tokens=4400)
    add_call(row, CallKind.MODEL, name="large", ordinal=1, has_changed=True)
    add_call(row, CallKind.TOOL, name="a", call_id="1", state=CallState.FAILED, error="OSError: no")
    add_call(row, CallKind.TOOL, name="b", call_id="2", state=CallState.STARTED)
    add_call(row, CallKind.TOOL, name="c", call_id="3", state=CallState.STARTED, fence=1)
    add_call(row, CallKind.TOOL, name="d", call_id="4", state=CallState.REJECTED)
    text = page(row)
    for mark in (
        "Replayed",
        "Request changed",
        "Failed",
        "Running",
        "Interrupted",
        "Rejected",
        "OSError: no",
        "$0.014",
        "4.4k",
    ):
        assert mark in text, mark


def test_a_pending_decision_is_a_waiting_row() -> None:
    row = start(clerk(two_look_ups()).enqueue(Empty()).agent_id)
    add_call(row, CallKind.AGENT, agent="Clerk", state=CallState.STARTED)
    Approval.objects.create(activity=row, tool="refund_order", call_id="7", agent="Clerk")
    Activity.objects.filter(pk=row.pk).update(blocking_child_id=row.pk, waiting_for="approval")
    text = page(row)
    assert "refund_order" in text
    assert "Waits for a decision." in text


def test_filters_keep_the_path_to_their_calls() -> None:
    row = run(ScriptedModel([[call("look_up", "1", name="x")], ConnectionError("no")]))
    assert page(row, calls="tools").count("data-call=") == 2
    assert page(row, calls="models").count("data-call=") == 3
    assert page(row, calls="failed").count("data-call=") == 2
    assert page(row, calls="nonsense").count("data-call=") == 4
    assert page(row, "trace/", calls="tools").count("data-call=") == 2


def test_calls_before_a_fresh_retry_stay_visible() -> None:
    row = run(two_look_ups(), fails=1)
    activity.retry(row.agent_id, fresh=True)
    text = page(row)
    assert "Calls before a fresh retry" in text
    assert text.count("data-call=") == 6


def test_users_without_the_monitor_permission_see_public_errors(settings: Any) -> None:
    settings.AGENTEXEC = {
        "POLICY": "tests.support.rest_api.OrganizationPolicy",
        "STAFF_SEES_ALL_TENANTS": False,
        "TRACE_REQUESTS": True,
    }
    row = run(ScriptedModel([ConnectionError("host=db.internal")]), organization_id="org-1")
    user = staff("clerk", "view_activity")
    type(user).objects.filter(pk=user.pk).update(first_name="org-1")
    user.refresh_from_db()
    failed = AgentCall.objects.of(row.agent_id).get(kind=CallKind.MODEL)
    pages = [
        page(row, path, user) for path in ("change/", "trace/", f"call/{failed.id}/", f"call/{failed.id}/?format=json")
    ]
    assert not [text for text in pages if "db.internal" in text]
    assert not [text for text in pages if "Check them." in text and "agent" not in text]
    assert "db.internal" in page(row)


def test_a_fork_asks_first_and_queues_a_new_activity() -> None:
    scripted = ScriptedModel([[call("look_up", "1", name="Acme")], say("Fine."), say("Other.")])
    row = run(scripted)
    last = AgentCall.objects.of(row.agent_id).filter(kind=CallKind.MODEL).last()
    assert last is not None
    client, url = browser(), f"{LIST}{row.pk}/fork/{last.id}/"
    assert "Fork before" in client.get(url).content.decode()
    assert Activity.objects.count() == 1
    response = client.post(url)
    drain()
    fork = Activity.objects.exclude(pk=row.pk).get()
    assert response["Location"] == f"{LIST}{fork.pk}/change/"
    assert (fork.result, fork.enqueued_by, DONE["Acme"]) == ("Other.", str(admin().pk), 1)


def test_a_fork_needs_the_permission_to_enqueue() -> None:
    row = run(two_look_ups())
    first = AgentCall.objects.of(row.agent_id)[0]
    viewer = staff("viewer", "view_activity")
    assert browser(viewer).post(f"{LIST}{row.pk}/fork/{first.id}/").status_code == 403
    assert "Fork from here" not in page(row, f"call/{first.id}/", viewer)
    assert Activity.objects.count() == 1


@pytest.mark.parametrize("fresh", [True, False])
def test_a_retry_is_fresh_on_request(fresh: bool) -> None:
    row = run(two_look_ups(), fails=1)
    client, url = browser(), f"{LIST}{row.pk}/retry/"
    assert 'name="fresh"' in client.get(url).content.decode()
    client.post(url, {"post": "yes", **({"fresh": "1"} if fresh else {})})
    row.refresh_from_db()
    assert row.status == Status.QUEUED
    assert AgentCall.objects.of(row.agent_id).current().exists() is not fresh


def many_calls(number: int) -> Activity:
    row = Activity.objects.get(pk=activity.create("t"))
    since = timezone.now() - timedelta(hours=1)
    add_call(row, CallKind.AGENT, agent="Clerk", since=since, seconds=3_000)
    for n in range(number // 2):
        when = since + timedelta(seconds=n * 20)
        add_call(row, CallKind.MODEL, name="large", ordinal=n, since=when, output={"output": [], "text": "x" * 20_000})
        add_call(row, CallKind.TOOL, name="read", ordinal=n, call_id=str(n), since=when, output="y" * 20_000)
    return row


def test_200_calls_render_in_under_a_second_and_with_the_same_queries() -> None:
    counts, sizes = [], []
    client = browser()
    for number in (2, 200):
        row = many_calls(number)
        url = f"{LIST}{row.pk}/change/"
        client.get(url)
        with CaptureQueriesContext(connection) as queries:
            started = time.perf_counter()
            response = client.get(url)
            took = time.perf_counter() - started
        counts.append(len(queries))
        sizes.append(len(response.content))
        with CaptureQueriesContext(connection) as part:
            client.get(f"{LIST}{row.pk}/trace/")
        assert len(part) == 4  # session, user, activity, calls
    assert counts[0] == counts[1]
    assert sizes[1] < 500_000  # without the content of 4 MB
    assert took < 5  # a second on an idle machine; the benchmark is the size and the number of queries


def test_a_wait_inside_a_tool_call_is_no_busy_time() -> None:
    row = Activity.objects.get(pk=activity.create("t"))
    since = timezone.now() - timedelta(hours=5)
    later = since + timedelta(hours=4)
    add_call(row, CallKind.AGENT, since=since, seconds=4 * 3600 + 10)
    add_call(row, CallKind.TOOL, call_id="1", since=since, seconds=4 * 3600 + 10, fence=2)
    add_call(row, CallKind.AGENT, path="/0:1", since=since, seconds=4 * 3600 + 10, fence=1)
    add_call(row, CallKind.MODEL, path="/0:1", since=since, seconds=10, fence=1)
    add_call(row, CallKind.MODEL, path="/0:1", ordinal=1, since=later, seconds=10, fence=2)
    assert "Long waits are shortened on the axis: 3 h 59 min." in page(row)


def without_names(value: Any, field: str, call: AgentCall) -> Any:
    return {"to": "[removed]"}


def no_redaction(value: Any, field: str, call: AgentCall) -> Any:
    raise LookupError


@pytest.mark.parametrize("redact", [without_names, no_redaction])
def test_arguments_that_a_person_has_changed_are_redacted_too(redact: Any) -> None:
    row = run(two_look_ups())
    made = add_call(row, CallKind.TOOL, name="send", call_id="9", arguments={"to": "New Name"})
    values = {"call_id": "9", "tool": "send", "arguments": {"to": "Old Name"}, "changed_arguments": {"to": "New Name"}}
    Approval.objects.create(activity=row, path=made.path, agent="Clerk", status="approved", **values)

    assert "Old Name" in page(row, f"call/{made.id}/", part=1)
    with override_settings(AGENTEXEC={"TRACE_REDACT": redact}):
        text = page(row, f"call/{made.id}/", part=1)

    assert "Changed when approving." in text
    assert "Name" not in text
    assert ("[removed]" in text) is (redact is without_names)
