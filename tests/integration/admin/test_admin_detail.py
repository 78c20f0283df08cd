"""The admin's page of one activity: its contents, which are read-only and escaped."""

from __future__ import annotations

import pytest
from django.conf import settings
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from django_agentexec import Status, activity
from django_agentexec.admin import detail
from django_agentexec.models import Activity, ActivityLog
from tests.support.activity_rows import fail, start
from tests.support.admin_pages import ALL, CHANGE_LIST, page_of, signed_in
from tests.testapp.agents import Keyed, Text, keyed, shout

pytestmark = pytest.mark.django_db(transaction=True)

SCRIPT = "<script>alert(1)</script>"


def test_tells_the_history_by_attempts_with_their_tracebacks() -> None:
    agent_id = shout.enqueue(Text()).agent_id
    start(agent_id, fence=1)
    fail(agent_id, error="no answer", traceback="Traceback of one", retry_delay=1.0)
    start(agent_id, fence=2)
    activity.update(agent_id, "Second try", percentage=30)

    response = signed_in(*ALL).get(page_of(agent_id))

    attempts = response.context["timeline"].attempts
    assert [(one.number, [line.message for line in one.lines]) for one in attempts] == [
        (0, ["Waiting to start."]),
        (1, ["Task started.", "Attempt 1 failed: no answer. Next attempt in 1.0 s."]),
        (2, ["Task started.", "Second try"]),
    ]
    page = response.content.decode()
    assert "Attempt 2" in page
    assert "Traceback of one" in page


def test_whatever_a_run_says_is_text() -> None:
    agent_id = activity.create(
        f"type{SCRIPT}", SCRIPT, context={"a": SCRIPT, SCRIPT: 1}, metadata={"b": SCRIPT, SCRIPT: 2}
    )
    activity.update(agent_id, SCRIPT)
    activity.error(agent_id, SCRIPT, traceback=SCRIPT)
    Activity.objects.filter(pk=agent_id).update(result={"c": SCRIPT}, lock_key=SCRIPT, worker=SCRIPT, queue=SCRIPT)
    client = signed_in(*ALL)

    for address in [page_of(agent_id), CHANGE_LIST, page_of(agent_id, "cancel"), f"{CHANGE_LIST}?metadata=a={SCRIPT}"]:
        assert SCRIPT not in client.get(address, follow=True).content.decode()
    whole = client.get(page_of(agent_id, "value", "context"))
    assert whole["Content-Type"] == "application/json; charset=utf-8"


def test_a_long_value_is_cut_and_has_a_page_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detail, "MAX_JSON", 50)
    agent_id = activity.create("import", context={"text": "ä" * 200})
    client = signed_in(*ALL)

    page = client.get(page_of(agent_id)).content.decode()
    whole = client.get(page_of(agent_id, "value", "context"))

    assert "Show all" in page
    assert "ä" * 51 not in page
    assert whole.json() == {"text": "ä" * 200}


def test_a_long_log_is_shown_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detail, "MAX_LINES", 3)
    agent_id = activity.create("import")
    for number in range(4):
        activity.update(agent_id, f"line {number}")
    client = signed_in(*ALL)

    latest = client.get(page_of(agent_id)).context["timeline"]
    earlier = client.get(page_of(agent_id), {"before": latest.earlier})

    assert [line.message for line in latest.attempts[-1].lines] == ["line 1", "line 2", "line 3"]
    assert [line.message for one in earlier.context["timeline"].attempts for line in one.lines] == [
        "Waiting to start.",
        "line 0",
    ]
    assert "data-is-past" in earlier.content.decode()


def test_links_to_parent_and_children() -> None:
    parent, child = activity.create("import"), activity.create("import")
    Activity.objects.filter(pk=child).update(parent_id=parent)
    client = signed_in(*ALL)

    assert page_of(child) in client.get(page_of(parent)).content.decode()
    assert page_of(parent) in client.get(page_of(child)).content.decode()


def test_the_number_of_queries_does_not_depend_on_the_history() -> None:
    short, long = keyed.enqueue(Keyed(key="a")).agent_id, keyed.enqueue(Keyed(key="a")).agent_id
    start(short)  # a queued activity has one query more: the pauses
    start(long)
    rows = [ActivityLog(activity_id=long, message="m", status=Status.RUNNING, attempt=n // 10) for n in range(2_000)]
    ActivityLog.objects.bulk_create(rows)
    Activity.objects.bulk_create([Activity(agent_type="child", queue="q", parent_id=long) for _ in range(100)])
    client = signed_in(*ALL)
    client.get(page_of(short))

    counts = []
    for agent_id in (short, long):
        with CaptureQueriesContext(connection) as queries:
            client.get(page_of(agent_id))
        counts.append(len(queries))

    assert counts[0] == counts[1] <= 13


def test_nothing_can_be_added_or_edited() -> None:
    agent_id = activity.create("import")
    client = signed_in(*ALL)

    assert client.post(page_of(agent_id), {"status": "complete"}).status_code == 403
    assert client.get(f"{CHANGE_LIST}add/").status_code == 403
    assert Activity.objects.get().status == Status.QUEUED


def test_offers_what_the_state_and_the_permissions_allow() -> None:
    agent_id = shout.enqueue(Text()).agent_id
    everything, nothing = signed_in(*ALL), signed_in("view_activity", name="jo")

    def offered(client: object) -> set[str]:
        may = client.get(page_of(agent_id)).context["may"]  # type: ignore[attr-defined]
        return {verb for verb, allowed in may.items() if allowed}

    assert offered(everything) == {"cancel"}
    activity.cancel(agent_id)
    assert offered(everything) == {"retry", "repeat", "delete"}
    assert offered(nothing) == set()


def test_an_unknown_activity_is_told_of() -> None:
    client = signed_in(*ALL)

    answers = [client.get(f"{CHANGE_LIST}{text}/change/") for text in ("no-id", "00000000-0000-0000-0000-000000000000")]

    assert [answer.status_code for answer in answers] == [302, 302]


# Live data


def test_live_data_go_on_after_the_last_line() -> None:
    agent_id = activity.create("import")
    activity.update(agent_id, "one", percentage=10)
    client = signed_in(*ALL)

    first = client.get(page_of(agent_id, "live")).json()
    activity.update(agent_id, "two", percentage=20)
    second = client.get(page_of(agent_id, "live"), {"after": first["last_log_id"]}).json()

    assert [line["message"] for line in first["logs"]] == ["Waiting to start.", "one"]
    assert [line["message"] for line in second["logs"]] == ["two"]
    assert second["activity"]["percentage"] == 20
    assert "context" not in second["activity"]


def test_live_data_need_the_permission() -> None:
    agent_id = activity.create("import")

    assert signed_in("cancel_activity").get(page_of(agent_id, "live")).status_code in (403, 404)


@pytest.mark.parametrize(
    ("options", "path"),
    [({}, "/ws/agents/activities/{}/"), ({"SOCKET_URL": "/live/"}, "/live/{}/"), ({"SOCKET_URL": ""}, "")],
)
def test_names_the_socket_of_the_settings(options: dict[str, str], path: str) -> None:
    agent_id = activity.create("import")

    with override_settings(AGENTEXEC=options):
        page = signed_in(*ALL).get(page_of(agent_id)).content.decode()

    assert f'data-socket="{path.format(agent_id)}"' in page


def test_names_no_socket_where_there_is_none() -> None:
    agent_id = activity.create("import")
    apps = [app for app in settings.INSTALLED_APPS if app != "django_agentexec.live"]

    with override_settings(INSTALLED_APPS=apps):
        page = signed_in(*ALL).get(page_of(agent_id)).content.decode()

    assert 'data-socket=""' in page
