"""Pauses in the admin: on the dashboard, on the page of an activity, and the pages that pause and resume."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.admin.models import ADDITION, DELETION, LogEntry
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from django_agentexec.models import Activity, Pause
from tests.support.activity_rows import start
from tests.support.admin_pages import ALL, CHANGE_LIST, DASHBOARD, TENANTS, TwoOrganizations, page_of, said, signed_in
from tests.testapp.agents import Text, report

pytestmark = pytest.mark.django_db(transaction=True)

PAUSE, RESUME = f"{DASHBOARD}pause/", f"{DASHBOARD}resume/"
REASON = "The mail provider is down"


def paused(scope: str = "queue", name: str = "mail", **values: Any) -> Pause:
    return Pause.objects.create(scope=scope, name=name, **{"reason": REASON, **values})


def mail(**metadata: Any) -> Activity:
    return Activity.objects.get(pk=report.enqueue(Text(), queue="mail", metadata=metadata).agent_id)


def text_of(client: Any, row: Activity) -> str:
    return str(client.get(page_of(row.pk)).content.decode())


def test_the_dashboard_has_each_pause_with_its_user_and_an_alert() -> None:
    client = signed_in("view_activity", "pause_activity")
    mail()
    client.post(f"{PAUSE}?scope=queue&name=mail", {"reason": REASON})
    paused("tenant", "tenant=Demo Dental")

    data = client.get(f"{DASHBOARD}data/").json()

    queue, tenant = data["overview"]["pauses"]
    assert (queue["name"], queue["by"], queue["reason"], queue["may_resume"]) == ("mail", "maria", REASON, True)
    assert {line["name"]: line["may_pause"] for line in data["overview"]["queues"]}["mail"]
    alerts = {alert["subject"]: alert for alert in data["alerts"] if alert["status"] == "paused"}
    assert alerts["Queue mail"]["text"] == f"holds 1 activity. {REASON}"
    assert alerts["Queue mail"]["resume"] == "queue:mail"
    assert alerts["Tenant tenant=Demo Dental"]["url"].endswith("?status=queued&metadata.tenant=Demo+Dental")
    assert tenant["by"] == ""
    assert "data-may-pause" in client.get(DASHBOARD).content.decode()


def test_users_without_the_permission_see_pauses_but_no_buttons() -> None:
    paused()
    mail()
    client = signed_in("view_activity")

    data = client.get(f"{DASHBOARD}data/").json()

    assert [pause["may_resume"] for pause in data["overview"]["pauses"]] == [False]
    assert not any(line["may_pause"] for line in data["overview"]["queues"])
    assert [alert["resume"] for alert in data["alerts"] if alert["status"] == "paused"] == [""]
    assert "data-may-pause" not in client.get(DASHBOARD).content.decode()
    assert client.get(f"{PAUSE}?scope=queue&name=slow").status_code == 403
    assert client.post(f"{PAUSE}?scope=queue&name=slow").status_code == 403
    assert client.post(RESUME, {"target": "queue:mail"}).status_code == 403
    assert Pause.objects.get().name == "mail"


def test_a_queue_is_paused_with_a_reason_and_resumed() -> None:
    client = signed_in("view_activity", "pause_activity")
    address = f"{PAUSE}?scope=queue&name=mail&next={CHANGE_LIST}"

    assert "Pause the queue mail?" in client.get(address).content.decode()
    answer = client.post(address, {"reason": REASON, "next": CHANGE_LIST})
    again = client.post(address, {"next": CHANGE_LIST})

    assert (answer.status_code, answer["Location"]) == (302, CHANGE_LIST)
    assert said(answer) == ["Queue mail is paused. Running activities continue."]
    assert said(again)[-1] == "Queue mail was paused already."
    row = Pause.objects.get()
    assert (row.scope, row.name, row.reason) == ("queue", "mail", REASON)
    assert '<td class="field-by">maria</td>' in client.get("/admin/agentexec/pause/").content.decode()

    answer = client.post(RESUME, {"target": "queue:mail"})
    late = client.post(RESUME, {"target": "queue:mail"})

    assert answer["Location"] == DASHBOARD
    assert [said(answer)[-1], said(late)[-1]] == ["Queue mail is resumed.", "Queue mail was not paused any more."]
    assert not Pause.objects.exists()
    assert list(LogEntry.objects.order_by("pk").values_list("action_flag", flat=True)) == [ADDITION, DELETION]


def test_impossible_requests_change_nothing() -> None:
    client = signed_in("view_activity", "pause_activity")

    assert client.get(RESUME).status_code == 405
    for query in (
        "",
        "scope=queue",
        "scope=queue&name=not%20a%20queue",
        "scope=everything&name=x",
        "scope=tenant&name=7",
    ):
        assert client.post(f"{PAUSE}?{query}").status_code == 403, query
    answer = client.post(f"{PAUSE}?scope=queue&name=mail", {"reason": "x" * 501})
    assert answer.status_code == 400
    assert "at most 500 characters" in answer.content.decode()
    assert not Pause.objects.exists()
    away = client.post(f"{PAUSE}?scope=queue&name=mail", {"next": "https://example.com/"})
    assert away["Location"] == DASHBOARD


def test_the_page_of_an_activity_names_what_holds_it() -> None:
    row = mail(tenant="Demo Dental")
    client = signed_in("view_activity", "pause_activity")
    assert "ae-pause" not in text_of(client, row)

    paused()
    paused("tenant", "tenant=Demo Dental", reason="Invoice not paid")
    text = text_of(client, row)

    for part in ("The queue mail is paused", REASON, "The tenant tenant=Demo Dental is paused", "Invoice not paid"):
        assert part in text, part
    assert 'data-paused="queue"' in text
    assert 'value="queue:mail"' in text
    assert client.get(page_of(row.pk, "live")).json()["activity"]["paused"] == "queue"
    assert 'data-paused="queue"' in client.get(CHANGE_LIST).content.decode()
    assert 'value="queue:mail"' not in text_of(signed_in("view_activity", name="jo"), row)


@override_settings(AGENTEXEC={**TENANTS, "STAFF_SEES_ALL_TENANTS": False})
def test_a_tenant_reads_neither_the_reason_nor_the_user_of_a_pause() -> None:
    row = mail(organization_id="org-1")
    paused()
    client = signed_in(*ALL, "pause_activity", first_name="org-1")

    text = text_of(client, row)

    assert "Its queue is paused" in text
    assert REASON not in text
    assert 'value="queue:mail"' not in text
    assert client.post(RESUME, {"target": "queue:mail"}).status_code == 403
    assert client.post(f"{PAUSE}?scope=queue&name=slow").status_code == 403
    assert Pause.objects.count() == 1


def test_only_a_queued_activity_costs_a_query_for_its_pauses() -> None:
    row = mail()
    client = signed_in(*ALL)
    client.get(page_of(row.pk))

    def reads() -> int:
        with CaptureQueriesContext(connection) as queries:
            client.get(page_of(row.pk))
        return sum("agentexec_pause" in query["sql"] for query in queries)

    assert reads() == 1
    start(row.pk)
    assert reads() == 0


class PausesOwn(TwoOrganizations):
    """Tenants pause and resume their own activities."""

    def may_pause(self, user: Any, scope: str, name: str) -> bool:
        return (scope, name) == ("tenant", f"organization_id={user.first_name}")


@override_settings(AGENTEXEC={"POLICY": PausesOwn, "STAFF_SEES_ALL_TENANTS": False})
def test_a_tenant_ends_its_own_pauses_and_not_those_of_staff() -> None:
    row, target = mail(organization_id="org-1"), "tenant:organization_id=org-1"
    client = signed_in(*ALL, "pause_activity", first_name="org-1")
    client.post(f"{PAUSE}?scope=tenant&name=organization_id=org-1")
    assert f'value="{target}"' in text_of(client, row)
    assert client.post(RESUME, {"target": target}).status_code == 302
    assert not Pause.objects.exists()

    of_staff = paused("tenant", "organization_id=org-1", actor="0")

    assert REASON in text_of(client, row)
    assert f'value="{target}"' not in text_of(client, row)
    assert client.post(RESUME, {"target": target}).status_code == 403
    assert client.post(f"/admin/agentexec/pause/{of_staff.pk}/delete/", {"post": "yes"}).status_code == 403
    selected = {"action": "delete_selected", "_selected_action": of_staff.pk, "post": "yes"}
    client.post("/admin/agentexec/pause/", selected)
    assert Pause.objects.get() == of_staff


@pytest.mark.parametrize(("policy", "status"), [(TwoOrganizations, 403), (PausesOwn, 200)])
def test_pauses_are_offered_where_the_policy_permits_one(policy: type, status: int) -> None:
    client = signed_in("view_activity", "pause_activity", first_name="org-1")

    with override_settings(AGENTEXEC={"POLICY": policy, "STAFF_SEES_ALL_TENANTS": False}):
        index = client.get("/admin/agentexec/").content.decode()
        assert client.get("/admin/agentexec/pause/add/").status_code == status

    assert ("/admin/agentexec/pause/" in index) == (status == 200)


@override_settings(AGENTEXEC={"POLICY": PausesOwn})
def test_users_who_may_resume_do_not_read_accounts_of_terminals() -> None:
    row = mail(organization_id="org-1")
    paused("tenant", "organization_id=org-1", actor="terminal:root")
    client = signed_in(*ALL, "pause_activity", first_name="org-1")

    for text in (text_of(client, row), client.get("/admin/agentexec/pause/").content.decode()):
        assert REASON in text
        assert "terminal" in text
        assert "terminal:root" not in text
    assert [each["actor"] for each in client.get("/agents/pauses/").json()] == ["terminal"]
