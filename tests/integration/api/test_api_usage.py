"""Usage and cost over REST."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_agentexec.models import Activity, CallKind
from tests.support.priced_calls import at, call, child_of, run_of
from tests.support.rest_api import POLICY, admin, client, member, staff

pytestmark = pytest.mark.django_db

NOVEMBER = {"from": "2026-11-01", "to": "2026-11-30"}


def get(who: Any, **parameters: Any) -> Any:
    return client(who).get("/agents/usage/", {**NOVEMBER, **parameters})


def test_a_report_by_task() -> None:
    call(run_of("answer"), "gpt-5", "0.0025", started_at=at(3), cached_tokens=400)
    call(run_of("report"), "house", started_at=at(4))

    response = get(admin(), group_by="task", time_zone="Europe/Berlin")

    assert response.status_code == 200, response.content
    group = {
        "key": "answer", "calls": 1, "runs": 1, "input_tokens": 1_000, "cached_tokens": 400, "output_tokens": 200,
        "reasoning_tokens": 0, "total_tokens": 1_200, "cost": "0.0025", "unpriced_calls": 0, "unpriced_tokens": 0,
        "median_cost": "0.0025",
    }  # fmt: skip
    unknown = {
        **group,
        "key": "report",
        "cached_tokens": 0,
        "cost": None,
        "unpriced_calls": 1,
        "unpriced_tokens": 1_200,
        "median_cost": None,
    }
    totals = {**unknown, "calls": 2, "runs": 2, "input_tokens": 2_000, "cached_tokens": 400, "output_tokens": 400}
    totals |= {"total_tokens": 2_400, "cost": "0.0025", "median_cost": "0.0025", "replayed_cost": "0"}
    totals |= {"unrecorded_runs": 0, "unrecorded_cost": "0"}
    del totals["key"]
    assert response.json() == {
        "group_by": "task", **NOVEMBER, "time_zone": "Europe/Berlin", "currency": "USD",
        "groups": [group, unknown], "has_more_groups": False, "totals": totals,
    }  # fmt: skip
    assert response["Vary"] == "Accept" or "Accept" in response["Vary"]


def test_the_default_is_28_days_up_to_today_by_day() -> None:
    call(run_of(), cost="1", started_at=timezone.now())

    report = client(admin()).get("/agents/usage/").json()

    assert [group["key"] for group in report["groups"]] == [report["to"]]
    assert (report["group_by"], report["time_zone"], report["to"]) == ("day", "UTC", str(timezone.now().date()))


@pytest.mark.parametrize(
    ("parameters", "headers"),
    [({"format": "csv"}, {}), ({}, {"HTTP_ACCEPT": "text/csv"}), ({}, {"HTTP_ACCEPT": "text/csv, */*;q=0.1"})],
)
def test_csv(parameters: dict[str, str], headers: dict[str, str]) -> None:
    call(run_of("answer"), cost="0.5", started_at=at(3))

    response = client(admin()).get("/agents/usage/", {**NOVEMBER, **parameters, "group_by": "task"}, **headers)

    assert response.status_code == 200, response.content
    assert response["Content-Type"] == "text/csv; charset=utf-8"
    assert "usage-2026-11-01-2026-11-30.csv" in response["Content-Disposition"]
    assert response.content.decode().splitlines()[1].startswith("answer,1,1,1000")


def test_errors_of_csv_requests_are_json() -> None:
    response = get(admin(), format="csv", group_by="tenant")
    assert (response.status_code, response["Content-Type"]) == (400, "application/json")


def test_json_wins_if_both_are_accepted_and_other_types_are_not() -> None:
    for accept, status in (("text/csv, application/json", 200), ("*/*", 200), ("image/png", 406)):
        response = client(admin()).get("/agents/usage/", NOVEMBER, HTTP_ACCEPT=accept)
        assert (response.status_code, response["Content-Type"]) == (status, "application/json")


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"group_by": "tenant"}, "group_by"),
        ({"group_by": "metadata."}, "group_by"),
        ({"group_by": "x" * 300}, "group_by"),
        ({"group_by": "metadata.a\0"}, "group_by"),
        ({"from": "yesterday"}, "from"),
        ({"from": "1700000000"}, "from"),
        ({"from": "2026-02-30"}, "from"),
        ({"from": "2026-12-01"}, "from"),
        ({"from": "2020-01-01"}, "from"),
        ({"to": "9999-12-31"}, "from"),
        ({"to": ""}, "to"),
        ({"time_zone": "Mars/Olympus"}, "time_zone"),
        ({"time_zone": "../../etc/passwd"}, "time_zone"),
        ({"format": "xml"}, "format"),
        ({"group": "day"}, "group"),
    ],
)
def test_impossible_parameters_are_refused(parameters: dict[str, str], name: str) -> None:
    response = get(admin(), **parameters)
    assert (response.status_code, list(response.json())) == (400, [name]), response.content


@override_settings(AGENTEXEC={"POLICY": POLICY, "EXPOSE_METADATA": True})
def test_a_tenant_sees_its_own_usage_only() -> None:
    ours, theirs = run_of("answer", organization_id="org-1"), run_of("secret", organization_id="org-2")
    call(ours, "gpt-5", "1", started_at=at(3))
    call(child_of(ours, organization_id="org-2"), "gpt-5", "8", started_at=at(3))
    call(theirs, "hidden-model", "2", started_at=at(3))
    who = member("org-1")

    for group_by in ("task", "model", "day", "metadata.organization_id"):
        report = get(who, group_by=group_by).json()
        assert (len(report["groups"]), report["totals"]["cost"]) == (1, "1"), report
    assert "secret" not in get(who, group_by="task", format="csv").content.decode()
    assert client(who).get(f"/agents/activities/{ours.pk}/usage/").json()["totals"]["cost"] == "1"
    assert client(who).get(f"/agents/activities/{theirs.pk}/usage/").status_code == 404


@override_settings(AGENTEXEC={"POLICY": POLICY})
def test_values_of_metadata_are_no_groups_for_users_who_may_not_read_it() -> None:
    call(run_of("answer", organization_id="org-1", margin="internal-40"), cost="1", started_at=at(3))
    who = member("org-1")

    for parameters in ({}, {"format": "csv"}):
        answer = get(who, group_by="metadata.margin", **parameters)
        assert answer.status_code == 403
        assert "internal-40" not in answer.content.decode()
    assert get(admin(), group_by="metadata.margin").json()["groups"][0]["key"] == "internal-40"
    with override_settings(AGENTEXEC={"POLICY": POLICY, "EXPOSE_METADATA": True}):
        assert get(who, group_by="metadata.margin").json()["groups"][0]["key"] == "internal-40"


@override_settings(AGENTEXEC={"POLICY": POLICY})
def test_metadata_filters_reports_and_runs() -> None:
    ours, other = run_of("answer", organization_id="org-1", n=7), run_of("report", organization_id="org-1", n=8)
    call(ours, cost="1", started_at=at(3))
    call(other, cost="2", started_at=at(3))
    call(run_of("secret", organization_id="org-2", n=7), cost="4", started_at=at(3))
    who = client(member("org-1"))

    assert get(member("org-1", "second"), group_by="task", **{"metadata.n": "7"}).json()["totals"]["cost"] == "1"
    listed = who.get("/agents/usage/runs/", {**NOVEMBER, "metadata.n": "7"}).json()
    assert [run["agent_id"] for run in listed["runs"]] == [str(ours.pk)]
    foreign = who.get("/agents/usage/runs/", {**NOVEMBER, "metadata.organization_id": "org-2"}).json()
    assert foreign["runs"] == []


def test_the_most_expensive_runs() -> None:
    dear = run_of("answer")
    call(dear, "gpt-5", "0.5", started_at=at(3))
    call(dear, "search", kind=CallKind.TOOL)
    call(run_of("report"), "gpt-5", "0.25", started_at=at(3))
    call(run_of("late"), "gpt-5", "8", started_at=at(1, month=12))

    answer = client(admin()).get("/agents/usage/runs/", {**NOVEMBER, "limit": "1", "time_zone": "Europe/Berlin"}).json()

    (run,) = answer.pop("runs")
    assert answer == {**NOVEMBER, "time_zone": "Europe/Berlin", "currency": "USD"}
    assert run == {
        "agent_id": str(dear.pk), "agent_type": "answer", "cost": "0.5", "calls": 1, "repeated_calls": 0,
        "input_tokens": 1_000, "cached_tokens": 0, "output_tokens": 200, "largest_call": "0.5", "attempts": 0,
        "models": ["gpt-5"], "tool": "search", "tool_calls": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("parameters", "name"),
    [({"limit": "0"}, "limit"), ({"limit": "101"}, "limit"), ({"from": "x"}, "from"), ({"group_by": "day"}, "group_by"),
     ({"time_zone": "Mars"}, "time_zone"), ({"to": "9999-12-31"}, "from")],
)  # fmt: skip
def test_impossible_parameters_of_runs_are_refused(parameters: dict[str, str], name: str) -> None:
    response = client(admin()).get("/agents/usage/runs/", parameters)
    assert (response.status_code, list(response.json())) == (400, [name]), response.content


def test_access_is_denied_by_default() -> None:
    assert get(None).status_code in (401, 403)
    assert get(staff("without")).status_code == 403
    assert get(staff("with", "view_activity")).status_code == 200


def test_the_usage_of_an_activity_includes_its_children() -> None:
    parent = run_of("plan")
    call(parent, "gpt-5", "1")
    call(child_of(parent), "gpt-5-mini", "2")

    found = client(admin()).get(f"/agents/activities/{parent.pk}/usage/").json()

    assert (found["totals"]["cost"], [model["key"] for model in found["models"]]) == ("3", ["gpt-5-mini", "gpt-5"])


def test_activities_have_their_cost_as_text() -> None:
    known, unknown = run_of(), run_of()
    Activity.objects.filter(pk=known.pk).update(cost="0.0000012300")
    who = client(admin())

    assert who.get(f"/agents/activities/{known.pk}/").json()["cost"] == "0.00000123"
    assert who.get(f"/agents/activities/{unknown.pk}/").json()["cost"] is None
    listed = {item["agent_id"]: item["cost"] for item in who.get("/agents/activities/").json()["items"]}
    assert listed == {str(known.pk): "0.00000123", str(unknown.pk): None}


def test_the_number_of_queries_does_not_depend_on_the_number_of_groups() -> None:
    counts, who = [], admin()
    for number in range(1, 4):
        for each in range(number * 3):
            call(run_of(f"task-{number}-{each}"), cost="1", started_at=at(3))
        with CaptureQueriesContext(connection) as queries:
            get(who, group_by="task")
        counts.append(len(queries))
    assert len(set(counts)) == 1
