"""The admin of staff of one tenant: its pages contain nothing of another tenant."""

from __future__ import annotations

from datetime import date

import pytest
from django.test import override_settings

from django_agentexec import activity
from django_agentexec.models import ConcurrencyLimit, ModelPrice, Pause
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


SHARED = tuple(
    f"{verb}_{model}" for verb in ("view", "add", "change", "delete") for model in ("concurrencylimit", "modelprice")
)


@override_settings(AGENTEXEC={"POLICY": "tests.support.rest_api.OrganizationPolicy", "STAFF_SEES_ALL_TENANTS": False})
def test_staff_of_a_tenant_change_no_limit_and_no_price_of_all() -> None:
    """A limit of 0 stops another tenant, and a price exhausts the budgets of others."""
    limit = ConcurrencyLimit.objects.create(scope="key", name="org:org-2", maximum=5)
    price = ModelPrice.objects.create(pattern="gpt*", valid_from=date(2020, 1, 1), input_price=1, output_price=1)
    client = signed_in(*ALL, *SHARED, "enqueue_task", first_name="org-1")

    for model, row in (("concurrencylimit", limit), ("modelprice", price)):
        address = f"/admin/agentexec/{model}/"
        assert client.post(f"{address}{row.pk}/change/", {"maximum": 0, "input_price": 9}).status_code == 403
        assert client.post(f"{address}{row.pk}/delete/", {"post": "yes"}).status_code == 403
        assert client.get(f"{address}add/").status_code == 403
        action = {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"}
        assert client.post(address, action).status_code in (200, 302, 403)
        row.refresh_from_db()
    assert client.get("/admin/agentexec/concurrencylimit/").status_code == 403  # its keys name tenants
    assert client.get("/admin/agentexec/modelprice/").status_code == 200
    root = signed_in(name="root", is_superuser=True)
    assert "org:org-2" in root.get("/admin/agentexec/concurrencylimit/").content.decode()


@override_settings(AGENTEXEC={"POLICY": "tests.support.rest_api.OrganizationPolicy", "STAFF_SEES_ALL_TENANTS": False})
def test_staff_of_a_tenant_neither_pause_nor_resume_another() -> None:
    pause = Pause.objects.create(scope="tenant", name="organization_id=org-2", reason="unpaid")
    client, address = signed_in(*ALL, "pause_activity", first_name="org-1"), "/admin/agentexec/pause/"

    for path in (f"{pause.pk}/delete/", f"{pause.pk}/change/", f"{pause.pk}/history/"):
        assert client.post(address + path, {"post": "yes"}).status_code in (302, 403, 404)
    client.post(address, {"action": "delete_selected", "_selected_action": [pause.pk], "post": "yes"})
    asked = {"scope": "tenant", "name": "organization_id=org-3", "reason": ""}
    assert client.post(f"{address}add/", asked).status_code == 403
    # Nor do they learn what is paused.
    assert client.post(f"{address}add/", {**asked, "name": pause.name}).status_code == 403
    assert client.post("/agents/pauses/", asked, content_type="application/json").status_code == 403
    assert client.post("/agents/pauses/resume/", {"scope": "tenant", "name": pause.name}).status_code in (403, 415)
    assert client.get("/agents/pauses/").json() == []
    assert "organization_id=org-2" not in client.get(address).content.decode()
    assert list(Pause.objects.all()) == [pause]
