"""The list's filters by model, tool and cost."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.test import override_settings

from django_agentexec.models import Activity, CallKind
from tests.support.admin_pages import ALL, CHANGE_LIST, TENANTS, listed, said, signed_in
from tests.support.priced_calls import call, run_of

pytestmark = pytest.mark.django_db


def paid(cost: str | None, **metadata: Any) -> UUID:
    row = run_of("answer", **metadata)
    Activity.objects.filter(pk=row.pk).update(cost=None if cost is None else Decimal(cost))
    return row.pk


def test_the_list_is_filtered_by_model_and_tool() -> None:
    client = signed_in("view_activity")
    large, small = run_of("answer"), run_of("answer")
    call(large, "large-2")
    call(large, "find_order", kind=CallKind.TOOL)
    call(small, "small-2")

    assert listed(client, model="large-2") == listed(client, tool="find_order") == [large.pk]
    assert listed(client, model="find_order") == listed(client, tool="\x00") == listed(client, tool="x" * 300) == []
    page = client.get(CHANGE_LIST, {"model": "large-2", "life": "active"}).content.decode()
    assert "<b>large-2</b>" in page
    for name in ("small-2", "find_order"):
        assert name in page  # offered
    assert '<input type="hidden" name="life" value="active">' in page


def test_the_list_is_filtered_by_cost() -> None:
    client = signed_in("view_activity")
    cheap, dear, _unknown = paid("0.5"), paid("2"), paid(None)

    assert listed(client, min_cost="1") == listed(client, min_cost="1,0") == [dear]
    assert listed(client, max_cost="1") == [cheap]
    assert listed(client, min_cost="0.5", max_cost="2") == [dear, cheap]
    assert "$0.500 \N{EN DASH} $2.00" in client.get(CHANGE_LIST, {"min_cost": "0.5", "max_cost": "2"}).content.decode()
    assert len(listed(client, min_cost="")) == 3
    for tiny in ("1e-20000", "1e-9999999"):  # of which PostgreSQL reads no number
        assert listed(client, min_cost=tiny) == [dear, cheap]
        assert listed(client, max_cost=tiny) == []


@pytest.mark.parametrize("wrong", ["x", "NaN", "-1", "1e30", "Infinity", "٣", "9" * 40])
def test_an_impossible_cost_is_ignored_with_a_message(wrong: str) -> None:
    paid("0.5")
    client = signed_in("view_activity")

    response = client.get(CHANGE_LIST, {"min_cost": wrong})

    assert len(response.context["cl"].result_list) == 1
    assert any("such as 0.50" in text for text in said(response))


@override_settings(AGENTEXEC=TENANTS)
def test_names_of_other_tenants_are_not_offered() -> None:
    call(run_of("answer", organization_id="org-2"), "secret-model")
    call(run_of("answer", organization_id="org-1"), "own-model")
    client = signed_in(*ALL, first_name="org-1")

    page = client.get(CHANGE_LIST).content.decode()

    assert "own-model" in page
    assert "secret-model" not in page
    assert listed(client, model="secret-model") == []
