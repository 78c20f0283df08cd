"""Addresses of all lists of the admin with values that no database can look up: no server error."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from django.contrib import admin
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.db import models, transaction
from django.test import Client, RequestFactory
from django.urls import reverse

from django_agentexec.models import Budget
from tests.support.admin_pages import signed_in, staff
from tests.support.budget_rows import budget

pytestmark = pytest.mark.django_db

OURS = sorted(
    (model for model in admin.site._registry if model.__module__.startswith("django_agentexec")),
    key=lambda model: model._meta.label,
)
ABSURD = ["NaN", "sNaN", "-Infinity", "1e999999999", "1e-999999999", "9" * 400, "1", "x"]
LOOKUPS = ["", "__gte", "__in", "__range", "__isnull"]


@pytest.fixture
def root() -> Client:
    return signed_in(name="root", is_superuser=True)


def look_up(model: Any, queries: list[dict[str, str]]) -> None:
    """Count the rows at these addresses, without rendering the pages; raise what is no answer of Django's admin."""
    user = staff(name="root", is_superuser=True)
    for query in queries:
        request = RequestFactory().get("/", query)
        request.user = user
        with suppress(SuspiciousOperation, PermissionDenied):
            assert admin.site._registry[model].changelist_view(request).status_code in (200, 302)


@pytest.mark.parametrize("model", OURS, ids=lambda model: model.__name__)
def test_absurd_numbers_are_no_server_error(model: Any) -> None:
    numbers = [
        field.name
        for field in model._meta.concrete_fields
        if isinstance(field, (models.DecimalField, models.IntegerField, models.FloatField, models.DurationField))
    ]
    look_up(model, [{f"{name}{lookup}": value} for name in numbers for lookup in LOOKUPS for value in ABSURD])


@pytest.mark.parametrize("model", OURS, ids=lambda model: model.__name__)
def test_absurd_lookups_of_other_fields_are_no_server_error(model: Any) -> None:
    queries: list[dict[str, str]] = []
    for field in model._meta.concrete_fields:
        queries += [{f"{field.name}__{lookup}": "("} for lookup in ("regex", "iregex", "contains", "gte", "isnull")]
        if isinstance(field, models.DateTimeField):
            queries += [{f"{field.name}__year": value} for value in ("99999999999999999999", "0", "-1", "1e9")]
            queries += [{f"{field.name}__gte": value} for value in ("99999-01-01", "0000-00-00", "now")]
        if isinstance(field, models.JSONField):
            queries += [{f"{field.name}__contains": "x"}, {f"{field.name}__has_key": "x"}, {f"{field.name}__0": "x"}]

    look_up(model, queries)


def test_a_refused_value_leads_back_to_the_list(root: Client) -> None:
    budget("10", name="Acme")
    address = reverse("admin:agentexec_budget_changelist")

    answer = root.get(address, {"limit__range": "123"}, follow=True)

    assert answer.redirect_chain == [(f"{address}?e=1", 302)]
    assert "Acme" in answer.content.decode()


def test_the_transaction_of_a_request_stays_usable(root: Client) -> None:
    budget("10")
    with transaction.atomic():
        address = reverse("admin:agentexec_budget_changelist")
        assert root.get(address, {"limit__range": "123"}).status_code == 302
        assert Budget.objects.count() == 1


def test_numbers_are_still_looked_up(root: Client) -> None:
    budget("10", name="Small")
    budget("20", name="Large")

    answer = root.get(reverse("admin:agentexec_budget_changelist"), {"limit__gte": "15"})

    assert [row.name for row in answer.context["cl"].result_list] == ["Large"]


def test_other_errors_of_a_list_are_not_hidden(root: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(Budget._meta.default_manager.__class__, "get_queryset", fail)
    with pytest.raises(ValueError, match="a bug"):
        root.get(reverse("admin:agentexec_budget_changelist"))
