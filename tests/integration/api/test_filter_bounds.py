"""Filters of an attacker: too many values, and characters that no database can store."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from django_agentexec import activity
from django_agentexec.api.parameters import MAX_METADATA_KEYS, MAX_VALUES
from django_agentexec.models import Activity, Conversation
from tests.support.admin_pages import ALL, CHANGE_LIST, said, signed_in
from tests.support.rest_api import admin, client

pytestmark = pytest.mark.django_db(transaction=True)

URL = "/agents/activities/"


def repeated(name: str, count: int) -> str:
    return "&".join(f"{name}={number}" for number in range(count))


@pytest.mark.parametrize("name", ["metadata.a", "status", "queue", "search", "page"])
def test_too_many_values_of_one_parameter_are_refused(name: str) -> None:
    answer = client(admin()).get(f"{URL}?{repeated(name, 990)}")

    assert answer.status_code == 400
    assert name in answer.json()


def test_too_many_metadata_keys_are_refused() -> None:
    who = client(admin())
    keys = [f"metadata.k{number}=1" for number in range(MAX_METADATA_KEYS + 1)]

    assert who.get(f"{URL}?{'&'.join(keys[:-1])}").status_code == 200
    answer = who.get(f"{URL}?{'&'.join(keys)}")
    assert (answer.status_code, list(answer.json())) == (400, ["metadata.<key>"])


def test_as_many_values_as_allowed_are_one_flat_condition() -> None:
    found = activity.create("import", metadata={"a": MAX_VALUES - 1})
    activity.create("import", metadata={"a": -1})
    who = client(admin())

    with CaptureQueriesContext(connection) as queries:
        answer = who.get(f"{URL}?{repeated('metadata.a', MAX_VALUES)}")

    assert [item["agent_id"] for item in answer.json()["items"]] == [str(found)]
    condition = next(query["sql"] for query in queries if "LIMIT 50" in query["sql"])
    assert condition.count("((") < 5  # not one bracket per value


def test_a_condition_of_many_values_is_built_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """Combining QuerySets one by one took 39 s for 990 values."""
    monkeypatch.setattr("django.db.models.query.QuerySet.__or__", lambda *_: pytest.fail("QuerySets were combined"))
    found = activity.create("import", metadata={"a": "7"})

    rows = Activity.objects.for_metadata_text("a", *map(str, range(200)))

    assert list(rows.values_list("agent_id", flat=True)) == [found]


@pytest.mark.parametrize(
    "query",
    [
        *["metadata.a=%00&search=foo", "metadata.a=%00", "metadata.%00=1", "queue=%00", "agent_type=%00", "search=%00"],
        *["status=%00", "parent=%00", "ordering=%00", "created_after=%00", "page=%00", "%00=1"],
    ],
)
def test_a_nul_in_a_parameter_is_refused_over_rest(query: str) -> None:
    assert client(admin()).get(f"{URL}?{query}").status_code == 400


@pytest.mark.parametrize("query", ["metadata.a=%00", "priority=%00", "delay=%00", "%00=%00"])
def test_a_nul_in_an_option_of_a_change_is_refused_over_rest(query: str) -> None:
    run = activity.create("import")
    who = client(admin())

    assert who.post(f"/agents/tasks/no_such_task/?{query}").status_code in (400, 404)
    assert who.post(f"{URL}{run}/retry/?{query}").status_code == 400
    assert who.get(f"{URL}{run}/?after=%00").status_code == 400


@pytest.mark.parametrize(
    "address",
    [
        *["conversations/?session_id=%00", "conversations/?owner=a%00", "conversations/?metadata.a=%00"],
        *["approvals/?tool=%00", "approvals/?activity=%00", "activities/{run}/calls/?name=%00"],
        *["usage/?time_zone=%00", "usage/?group_by=metadata.%00"],
    ],
)
def test_a_nul_in_a_parameter_of_other_lists_is_refused_over_rest(address: str) -> None:
    run = activity.create("import")

    assert client(admin()).get(f"/agents/{address.format(run=run)}").status_code == 400


class HidesAll:
    """The result of a policy for a user without a tenant."""

    @staticmethod
    def visible(user: Any, activities: Any) -> Any:
        return activities.filter(agent_type__in=[])


def test_a_search_in_an_impossible_selection_finds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    activity.create("import")
    monkeypatch.setattr("django_agentexec.policy.StaffPolicy.visible", lambda self, *given: HidesAll.visible(*given))

    answer = client(admin()).get(f"{URL}?search=import")

    assert (answer.status_code, answer.json()["total"]) == (200, 0)


@pytest.mark.parametrize(
    "query",
    [f"{name}=%00" for name in ("task", "status", "queue", "life", "created", "metadata", "metadata.a", "q", "o", "p")]
    + ["metadata=a%3D%00", "metadata.%00=1", "q=a%00b", "q=a%3D%00", "parent=%00", "parent=nobody", "all=%00", "e=%00"],
)
def test_a_nul_finds_nothing_in_the_admin(query: str) -> None:
    activity.create("import")

    answer = signed_in(*ALL).get(f"{CHANGE_LIST}?{query}", follow=True)

    assert answer.status_code == 200


def test_other_addresses_of_the_admin_take_a_nul_for_no_match() -> None:
    run, who = activity.create("import"), signed_in(*ALL)
    page = f"{CHANGE_LIST}{run}"

    for address in (f"{page}/change/?before=%00", f"{page}/live/?after=%00", f"{page}/retry/?from_step=%00"):
        assert who.get(address).status_code == 200
    assert who.get(f"{page}/value/{quote(chr(0))}/").status_code == 404
    assert who.get(f"{CHANGE_LIST}%00/change/", follow=True).status_code == 200
    assert who.get(f"{CHANGE_LIST}%00/live/").status_code == 404
    for fields in (
        {"action": "cancel_selected", "_selected_action": "\0"},
        {"action": "cancel_selected", "_selected_action": "nobody"},
        {"action": "\0", "_selected_action": str(run)},
        {"action": "cancel_selected", "_selected_action": str(run), "select_across": "\0", "until": "\0"},
    ):
        assert who.post(CHANGE_LIST, fields, follow=True).status_code == 200, fields


@pytest.mark.parametrize("model", ["budget", "budgetledger", "concurrencylimit", "pause", "modelprice"])
@pytest.mark.parametrize("query", ["q=a%00", "scope=%00", "scope__exact=%00", "name__contains=%00", "unit=%00"])
def test_a_nul_finds_nothing_in_lists_of_shared_rows(model: str, query: str) -> None:
    who = signed_in(name="root", is_superuser=True)

    assert who.get(f"/admin/agentexec/{model}/?{query}", follow=True).status_code == 200


@pytest.mark.parametrize("address", ["conversation/?q=a%00", "conversation/?p={huge}", "approval/?p={huge}"])
def test_lists_of_the_admin_take_an_impossible_search_or_page_for_no_match(address: str) -> None:
    found = Conversation.objects.get_or_create_session("a")
    who = signed_in("view_activity", "view_conversation")

    answer = who.get(f"/admin/agentexec/{address.format(huge=2**63 - 1)}")

    assert answer.status_code == 200
    assert str(found.pk) not in answer.content.decode()


def test_too_many_metadata_entries_are_ignored_in_the_admin_with_a_message() -> None:
    run, who = activity.create("import", metadata={"a": 1}), signed_in(*ALL)

    answer = who.get(f"{CHANGE_LIST}?{'&'.join(['metadata=a%3D1'] * 900)}&metadata.b=2")

    assert [row.agent_id for row in answer.context["cl"].result_list] == [run]
    assert any("metadata" in text for text in said(answer))


def test_a_search_for_a_bare_value_tries_a_bounded_number_of_keys() -> None:
    for number in range(60):
        activity.create("import", metadata={f"k{number}-{inner}": "x" for inner in range(20)})
    who = signed_in(*ALL)

    with CaptureQueriesContext(connection) as queries:
        assert who.get(f"{CHANGE_LIST}?q=x").status_code == 200

    assert max(len(query["sql"]) for query in queries) < 20_000


@override_settings(AGENTEXEC={"COUNT_LIMIT": 10})
def test_the_status_can_be_repeated_within_reason() -> None:
    run = activity.create("import")

    answer = client(admin()).get(f"{URL}?{'&'.join(['status=queued'] * 20)}")

    assert [item["agent_id"] for item in answer.json()["items"]] == [str(run)]
