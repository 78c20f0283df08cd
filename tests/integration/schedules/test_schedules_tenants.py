"""The history of schedules, for staff of one tenant: which runs they see the activity of."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission
from django.test import Client, override_settings

from django_agentexec.schedules.firing import fire
from django_agentexec.schedules.models import ScheduleRun
from tests.support.admin_pages import TENANTS, staff
from tests.support.schedule_builders import NOON, SECOND, make_schedule

pytestmark = pytest.mark.django_db

RUNS = "/admin/agentexec_schedules/schedulerun/"


@pytest.fixture
def browser() -> Client:
    """The browser of a member of org-1's staff."""
    user = staff("view_activity", first_name="org-1")
    user.user_permissions.add(Permission.objects.get(codename="view_schedulerun"))
    client = Client()
    client.force_login(user)
    return client


@override_settings(AGENTEXEC=TENANTS)
def test_an_activity_of_another_tenant_is_not_shown(browser: Client) -> None:
    runs: dict[str, ScheduleRun] = {}
    for tenant in ("org-1", "org-2"):
        schedule = make_schedule(name=tenant, metadata={"organization_id": tenant})
        fire(schedule.pk, NOON + 10 * SECOND)
        runs[tenant] = schedule.runs.get()

    shown = browser.get(RUNS).content.decode()
    pages = {tenant: browser.get(f"{RUNS}{run.pk}/change/").content.decode() for tenant, run in runs.items()}

    assert str(runs["org-1"].activity_id) in shown
    assert str(runs["org-1"].activity_id) in pages["org-1"]
    assert ">queued<" in pages["org-1"].lower()
    assert str(runs["org-2"].activity_id) not in shown
    assert str(runs["org-2"].activity_id) not in pages["org-2"]
    assert ">queued<" not in pages["org-2"].lower()
