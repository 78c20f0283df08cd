"""The admin of staff of one tenant: its pages contain nothing of another tenant."""

from __future__ import annotations

import pytest
from django.test import override_settings

from django_agentexec import activity
from tests.support.admin_pages import ALL, CHANGE_LIST, TENANTS, signed_in

pytestmark = pytest.mark.django_db(transaction=True)


def test_the_filter_by_task_offers_the_tasks_of_visible_rows() -> None:
    activity.create("merger_with_acme", metadata={"organization_id": "org-2"})
    activity.create("report", metadata={"organization_id": "org-1"})

    with override_settings(AGENTEXEC=TENANTS):
        page = signed_in(*ALL, first_name="org-1").get(CHANGE_LIST).content.decode()
    everything = signed_in(*ALL, name="root", is_superuser=True).get(CHANGE_LIST).content.decode()

    assert "task=report" in page
    assert "merger_with_acme" not in page
    assert "task=merger_with_acme" in everything
