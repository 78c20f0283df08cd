"""The admin's dashboard: its page, its data, and who may see them. What moves is in tests/browser."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

import django_agentexec
from django_agentexec import Status, activity
from django_agentexec.budgets.applicable import key_of
from django_agentexec.budgets.periods import period_at
from django_agentexec.models import AgentCall, Approval, Budget, BudgetLedger
from tests.support.admin_pages import ALL, CHANGE_LIST, DASHBOARD, TENANTS, fill, page_of, signed_in
from tests.support.approval_rows import waiting
from tests.support.budget_rows import budget
from tests.support.priced_calls import call, run_of

pytestmark = pytest.mark.django_db(transaction=True)

PACKAGE = Path(django_agentexec.__file__).parent


def test_the_data_are_the_overview_and_what_runs() -> None:
    running = activity.create("import")
    activity.update(running, "Reading", percentage=30)
    activity.create("import")

    data = signed_in("view_activity").get(f"{DASHBOARD}data/").json()

    assert [(item["agent_id"], item["percentage"]) for item in data["running"]] == [(str(running), 30)]
    assert (data["overview"]["running"], data["overview"]["queued"]) == (1, 1)
    assert len(data["overview"]["minutes"]) == 60


def test_the_overview_can_be_left_out() -> None:
    assert set(signed_in("view_activity").get(f"{DASHBOARD}data/", {"overview": "0"}).json()) == {"running"}


def test_the_data_counts_the_decisions_that_agents_wait_for() -> None:
    client = signed_in("view_activity")
    assert client.get(f"{DASHBOARD}data/").json()["overview"]["needs_approval"] == 0

    (first,) = waiting()
    waiting({"kind": "question"})
    Approval.objects.filter(pk=first.pk).update(requested_at=timezone.now() - timedelta(hours=1))

    overview = client.get(f"{DASHBOARD}data/").json()["overview"]
    assert (overview["needs_approval"], overview["oldest_request"] >= 3_600) == (2, True)
    assert 'data-count="needs_approval"' in client.get(DASHBOARD).content.decode()


def test_the_page_carries_its_first_data() -> None:
    running = activity.create("import")
    activity.update(running, "</script><b>Reading", percentage=30)

    page = signed_in("view_activity").get(DASHBOARD).content.decode()

    assert str(running) in page
    assert "</script><b>" not in page


def test_the_page_has_the_most_exhausted_budgets_for_users_who_may_see_them() -> None:
    budget("10", name="Full")
    budget("10", name="Never", is_active=False)
    budget("1", name="Each run", period="run")
    ledger_of(budget("20", name="Half"), spent="10")

    page = signed_in("view_activity", "view_budget").get(DASHBOARD).content.decode()

    assert page.index(">Half</a>") < page.index(">Full</a>")
    assert "50 % ($10.00)" in page
    assert ">Never</a>" not in page
    assert ">Each run</a>" not in page
    assert ">Half</a>" not in signed_in("view_activity", name="jo").get(DASHBOARD).content.decode()


def ledger_of(found: Budget, spent: str) -> None:
    period = period_at(found.period, found.time_zone, timezone.now())
    fields = {"label": found.name, "period": period.name, "unit": found.unit, "action": found.action}
    BudgetLedger.objects.create(id=key_of(found, period.name), budget=found, spent=Decimal(spent), **fields)


def test_the_cost_of_today_and_of_the_month_is_a_tile_with_a_link() -> None:
    now = timezone.now()
    call(run_of(), cost="2.50", started_at=now)
    call(run_of(), cost=None, started_at=now)
    client = signed_in("view_activity")

    page = client.get(DASHBOARD).content.decode()

    assert "usage/?range=today" in page
    assert re.search(r'data-spend="today">\$2.50<.*data-spend="month">\$2.50 this month<', page)
    assert client.get(f"{DASHBOARD}data/", {"spend": "1"}).json()["spend"]["today"] == "$2.50"
    assert "spend" not in client.get(f"{DASHBOARD}data/").json()
    AgentCall.objects.update(cost=None)
    assert client.get(f"{DASHBOARD}data/", {"spend": "1"}).json()["spend"]["today"] == "Unknown"
    AgentCall.objects.all().delete()
    assert client.get(f"{DASHBOARD}data/", {"spend": "1"}).json()["spend"]["today"] == "$0"


def test_each_task_has_its_spend() -> None:
    fill(2, cost=Decimal("0.5"))
    fill(1, agent_type="free")

    response = signed_in("view_activity").get(DASHBOARD)

    assert [(line.task, line.per_run, line.spend) for line in response.context["tasks"]] == [
        ("import", "$0.500", "$1.00"),
        ("free", "", ""),
    ]
    assert response.context["tasks_total"].spend == "$1.00"


def test_follows_fifty_at_most() -> None:
    fill(60, status=Status.RUNNING)
    client = signed_in("view_activity")
    client.get(DASHBOARD)

    with CaptureQueriesContext(connection) as queries:
        data = client.get(f"{DASHBOARD}data/").json()

    assert len(data["running"]) == 50
    assert data["overview"]["running"] == 60
    assert len(queries) <= 10


def test_is_linked_from_the_apps_index_and_from_the_list() -> None:
    client = signed_in("view_activity")

    for page in ("/admin/agentexec/", CHANGE_LIST):
        assert f'href="{DASHBOARD}"' in client.get(page).content.decode()


@override_settings(AGENTEXEC=TENANTS)
def test_who_may_not_monitor_has_no_dashboard() -> None:
    client = signed_in(*ALL, first_name="org-1")

    assert client.get(DASHBOARD).status_code == 403
    assert client.get(f"{DASHBOARD}data/").status_code == 403
    assert DASHBOARD not in client.get(CHANGE_LIST).content.decode()


def test_who_may_not_view_has_no_dashboard() -> None:
    assert signed_in("cancel_activity").get(f"{DASHBOARD}data/").status_code == 403


def test_no_page_of_ours_has_inline_scripts_or_styles_or_foreign_files() -> None:
    agent_id = activity.create("import")
    client = signed_in(*ALL)

    for address in (DASHBOARD, page_of(agent_id), page_of(agent_id, "cancel"), CHANGE_LIST):
        page = client.get(address).content.decode()
        inline = re.findall(r"<script(?![^>]*(?:\bsrc=|application/json))[^>]*>", page)
        assert not inline
        assert not re.findall(r"<style|\bstyle=|\son[a-z]+=", page)
        assert not re.findall(r"(?:src|href)=\"(?:https?:)?//", page)


def test_the_scripts_fetch_nothing_from_elsewhere() -> None:
    files = [*(PACKAGE / "static").rglob("*.js"), *(PACKAGE / "static").rglob("*.css")]

    assert len(files) > 10
    for file in files:
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(
            r"https?://|@import|[: ]url\(|innerHTML|insertAdjacentHTML|document\.write|eval\(", text
        ), file
