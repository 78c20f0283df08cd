"""The admin's page of usage and cost, the cost on other pages, and the prices of models."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone, translation

from django_agentexec.admin.formatting import money
from django_agentexec.models import Activity, CallKind, ModelPrice, Status
from django_agentexec.money import dollars
from tests.support.admin_pages import CHANGE_LIST, TENANTS, page_of, signed_in
from tests.support.priced_calls import call, child_of, run_of
from tests.support.rest_api import OrganizationPolicy

pytestmark = pytest.mark.django_db

USAGE = "/admin/agentexec/activity/usage/"
PRICES = "/admin/agentexec/modelprice/"
COLUMNS = {"ADMIN_METADATA_COLUMNS": [{"key": "organization_id", "label": "Tenant"}]}


def paid(owner: Activity, cost: str | None = "1", name: str = "gpt-5", **values: Any) -> None:
    call(owner, name, cost, **{"started_at": timezone.now(), **values})


def page(client: Any, **parameters: str) -> str:
    response = client.get(USAGE, parameters)
    assert response.status_code == 200
    return str(response.content.decode())


def test_the_page_shows_cost_by_task_and_model() -> None:
    paid(run_of("answer"), "84.31", cached_tokens=400)
    paid(run_of("classify"), "0.017", "gpt-5-mini")
    paid(run_of("classify"), None, "house")

    text = page(signed_in("view_activity"))

    for part in ("$84.33", "$0.017", "answer", "classify", "1.2k", "1 call has no price", "Most expensive runs"):
        assert part in text, part
    assert "style=" not in text
    assert text.count("<rect data-series") == 2
    assert "$1.25 / $10.00" in text


def test_a_model_without_a_price_leads_to_the_form_of_a_price() -> None:
    paid(run_of(), None, "my model", provider="gpu.internal:8000")

    assert "Set a price" not in page(signed_in("view_activity"))
    with override_settings(AGENTEXEC={"POLICY": OrganizationPolicy, "STAFF_SEES_ALL_TENANTS": False}):
        of_tenant = signed_in("view_activity", "add_modelprice", "view_modelprice", name="tenant", first_name="org-1")
        assert "Set a price" not in page(of_tenant)
    client = signed_in("view_activity", "add_modelprice", "view_modelprice", name="editor")
    text = page(client)
    link = f"{PRICES}add/?pattern=my%20model&amp;provider=gpu.internal%3A8000"
    assert link in text
    assert "Unknown" in text
    form = client.get(link.replace("&amp;", "&")).content.decode()
    assert 'value="my model"' in form


def test_groups_by_configured_metadata_and_csv() -> None:
    paid(run_of(organization_id="Example Bikes"), "2")
    with override_settings(AGENTEXEC=COLUMNS):
        client = signed_in("view_activity")
        text = page(client, by="metadata.organization_id")
        assert '<option value="metadata.organization_id" selected>Tenant</option>' in text
        assert "Example Bikes" in text
        answer = client.get(USAGE, {"by": "metadata.organization_id", "format": "csv"})
    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    assert "Example Bikes,1,1,1000" in answer.content.decode()


@pytest.mark.parametrize("parameters", [{"range": "never"}, {"by": "tenant"}, {"by": "metadata."}, {"range": "today"}])
def test_impossible_parameters_fall_back(parameters: dict[str, str]) -> None:
    paid(run_of("answer"), "2")
    assert "answer" in page(signed_in("view_activity"), **parameters)


def test_the_median_of_runs_and_what_replays_have_saved() -> None:
    replayed = run_of("answer")
    Activity.objects.filter(pk=replayed.pk).update(status=Status.COMPLETE, attempt=2)
    paid(replayed, "0.02")
    for cost in ("0.03", "9"):
        paid(run_of("answer"), cost)

    text = page(signed_in("view_activity"))

    assert "median $0.030, 3 runs" in text
    assert "providers' caches $0, replay $0.020" in text
    assert 'data-label="Median">$0.030' in text


def test_expensive_runs_have_their_reasons_and_their_tenant() -> None:
    owner = run_of("answer", organization_id="Example Bikes")
    Activity.objects.filter(pk=owner.pk).update(attempt=3)
    paid(owner, "3")
    paid(owner, "1", set_aside=5)
    for _number in range(38):
        call(owner, "search_orders", kind=CallKind.TOOL)

    with override_settings(AGENTEXEC=COLUMNS):
        text = page(signed_in("view_activity"))

    section = text[text.index("ae-expensive") :]
    for part in (
        "Example Bikes", "2 model calls", "2.4k tokens", "gpt-5", "the tool search_orders was called 38 times",
        "1 call failed or was made again", "3 attempts", "one call cost $3.00",
    ):  # fmt: skip
        assert part in section, part


@override_settings(AGENTEXEC=COLUMNS)
def test_the_page_is_filtered_by_metadata() -> None:
    paid(run_of("answer", organization_id="Example Bikes"), "2")
    paid(run_of("report", organization_id=7), "40")
    client = signed_in("view_activity")

    text = page(client, **{"metadata.organization_id": "7"})
    assert "$40.00" in text
    assert "answer" not in text
    assert 'name="metadata.organization_id" value="7"' in text
    assert '<option value="Example Bikes">' in text  # the form offers the others
    assert "metadata.organization_id=7&amp;format=csv" in text
    assert "range=7d&amp;by=task&amp;metadata.organization_id=7" in text
    assert "answer" not in client.get(USAGE, {"metadata.organization_id": "7", "format": "csv"}).content.decode()
    assert "$42.00" in page(client, **{"metadata.organization_id": ""})
    assert "No calls of models in this time" in page(client, **{"metadata.organization_id": "a\0b"})
    assert "metadata.organization_id=Example+Bikes" in page(client, by="metadata.organization_id")
    other = page(client, **{"metadata.plan": "<b>"})
    assert 'name="metadata.plan" value="&lt;b&gt;"' in other


@override_settings(AGENTEXEC={**TENANTS, **COLUMNS})
def test_staff_of_a_tenant_neither_filter_nor_see_values_of_others() -> None:
    paid(run_of("answer", organization_id="org-1"), "2")
    paid(run_of("secret", organization_id="org-2"), "40")
    client = signed_in("view_activity", first_name="org-1")

    text = page(client, **{"metadata.organization_id": "org-2"})
    assert "No calls of models in this time" in text
    assert '<option value="org-2">' not in text


def test_the_change_to_the_period_before() -> None:
    paid(run_of("answer"), "3")
    paid(run_of("answer"), "2", started_at=timezone.now() - timedelta(days=30))

    assert "+ 50 %" in page(signed_in("view_activity"))


def test_an_empty_page_says_why() -> None:
    assert "No calls of models in this time" in page(signed_in("view_activity"))


def test_access() -> None:
    assert signed_in().get(USAGE).status_code == 403
    assert signed_in("view_activity", name="viewer").get(PRICES).status_code == 403


@override_settings(AGENTEXEC=TENANTS)
def test_staff_of_a_tenant_see_its_usage_only() -> None:
    paid(run_of("answer", organization_id="org-1"), "2")
    paid(run_of("secret", organization_id="org-2"), "40", "hidden-model")
    client = signed_in("view_activity", first_name="org-1")

    text = page(client)
    assert "$2.00" in text
    assert "secret" not in text
    assert "hidden-model" not in text
    assert "secret" not in client.get(USAGE, {"format": "csv"}).content.decode()


def test_the_number_of_queries_is_constant() -> None:
    client, counts = signed_in("view_activity"), []
    for number in range(1, 4):
        for each in range(number * 3):
            paid(run_of(f"task-{number}-{each}"), "1", f"model-{each}")
        with CaptureQueriesContext(connection) as queries:
            page(client)
        counts.append(len(queries))
    assert counts[1] == counts[2]
    assert counts[2] <= 21


def test_the_detail_shows_the_cost_with_children_by_model() -> None:
    parent = run_of("plan")
    Activity.objects.filter(pk=parent.pk).update(
        cost=Decimal("0.25"), usage={"input_tokens": 1_000, "output_tokens": 200, "total_tokens": 1_200}
    )
    paid(parent, "0.25")
    paid(child_of(parent), "4", "gpt-5-mini")
    paid(child_of(parent), None, "house")

    text = signed_in("view_activity").get(page_of(parent.pk)).content.decode()

    for part in ("$0.250", "With its children, by model", "1.2k · $4.00", "1.2k · Unknown", "$4.25", "have no price"):
        assert part in text, part


def test_the_list_shows_the_cost() -> None:
    known, unknown = run_of("answer"), run_of("house")
    Activity.objects.filter(pk=known.pk).update(cost=Decimal("0.0002"), usage={"total_tokens": 5})
    Activity.objects.filter(pk=unknown.pk).update(usage={"total_tokens": 5})

    text = signed_in("view_activity").get(CHANGE_LIST).content.decode()
    assert "&lt; $0.001" in text
    assert "Unknown" in text


def test_prices_are_edited_and_validated() -> None:
    client = signed_in("view_activity", "view_modelprice", "add_modelprice", "change_modelprice")
    values = {
        "pattern": "house-*",
        "provider": "",
        "valid_from": "2026-11-01",
        "input_price": "0.25",
        "output_price": "2",
    }

    for wrong in ({"input_price": "-1"}, {"input_price": "free"}, {"pattern": ""}, {"valid_from": "soon"}):
        answer = client.post(f"{PRICES}add/", {**values, **wrong})
        assert (answer.status_code, ModelPrice.objects.count()) == (200, 0)
        assert "errorlist" in answer.content.decode()
    assert client.post(f"{PRICES}add/", values).status_code == 302
    assert ModelPrice.objects.get().input_price == Decimal("0.25")
    assert "already exists" in client.post(f"{PRICES}add/", values).content.decode()
    assert "$0.25" in client.get(PRICES).content.decode()


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (None, "Unknown"),
        ("0", "$0"),
        ("0.0009", "< $0.001"),
        ("0.0174", "$0.017"),
        ("1204.5", "$1,204.50"),
    ],
)
def test_amounts_as_text(amount: str | None, text: str) -> None:
    assert money(None if amount is None else Decimal(amount)) == text


def test_prices_as_text() -> None:
    assert [dollars(Decimal(text)) for text in ("1.250000", "10", "0.075")] == ["$1.25", "$10.00", "$0.075"]


def test_amounts_in_german() -> None:
    with translation.override("de"):
        assert money(Decimal("1204.5")) == "1.204,50\N{NO-BREAK SPACE}$"


@pytest.mark.parametrize("query", ["provider=%00", "provider__exact=%00", "q=%00", "%00=1"])
def test_prices_with_characters_that_no_database_holds_match_nothing(query: str) -> None:
    ModelPrice.objects.create(pattern="my-*", input_price=1, output_price=2, provider="a")
    client = signed_in("view_modelprice")

    with CaptureQueriesContext(connection) as queries:
        response: Any = client.get(f"{PRICES}?{query}", follow=True)

    assert response.status_code == 200
    assert not any("\x00" in each["sql"] for each in queries)


def test_an_address_with_very_many_filters_is_no_server_error() -> None:
    filters = {f"metadata.key{number}": "1" for number in range(990)}

    text = page(signed_in("view_activity"), **filters)

    assert "key9" in text
    assert "key10" not in text
