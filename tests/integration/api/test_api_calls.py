"""Recorded calls over REST: paging, filters, content and its limits, and lists of activities by their calls."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from agents.testing import ScriptedModel
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_agentexec import activity
from django_agentexec.calls.paths import joined
from django_agentexec.calls.queries import Parents, page_of_calls, parents_of
from django_agentexec.models import Activity, AgentCall, CallKind, CallState
from tests.support.recorded_calls import add_call, call, run, say, two_look_ups
from tests.support.rest_api import POLICY, admin, client, member

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("durable_tasks")]


def url(agent_id: UUID | str, call_id: UUID | str | None = None) -> str:
    return f"/agents/activities/{agent_id}/calls/" + (f"{call_id}/" if call_id else "")


def get(agent_id: UUID, user: Any = None, **parameters: Any) -> Any:
    answer = client(user or admin()).get(url(agent_id), parameters)
    assert answer.status_code == 200, answer.json()
    return answer.json()


def test_calls_form_a_tree_with_content() -> None:
    row = run(two_look_ups())

    page = get(row.agent_id)

    assert not page["has_more"]
    agent, *inside = page["items"]
    assert [(each["kind"], each["name"]) for each in inside[:2]] == [("model", "ScriptedModel"), ("tool", "look_up")]
    assert {each["parent_id"] for each in inside} == {agent["id"]}
    assert (agent["parent_id"], agent["output"]) == (None, "Both are fine.")
    tool = inside[1]
    assert (tool["arguments"], tool["output"], tool["state"]) == ({"name": "Acme"}, "Acme is fine", "done")
    assert tool["is_replayed"] is False
    assert tool["duration"] >= 0
    assert "request" not in tool


def test_a_nested_run_is_inside_its_tool_call() -> None:
    row = Activity.objects.get(pk=activity.create("t"))
    outer = add_call(row, CallKind.AGENT, path="")
    tool = add_call(row, CallKind.TOOL, path="", ordinal=0, call_id="c~1")
    inner = add_call(row, CallKind.AGENT, path="/0:c-1")
    second = add_call(row, CallKind.AGENT, path="/0:c-1~2")
    guard = add_call(row, CallKind.AGENT, path="^Guard:1f#0")
    recovery = add_call(row, CallKind.AGENT, path="+recovery")
    later = add_call(row, CallKind.AGENT, path="~2")
    parents = {each["id"]: each["parent_id"] for each in get(row.agent_id)["items"]}
    expected = {outer: None, tool: outer, inner: tool, second: tool, guard: outer, recovery: outer, later: None}
    assert parents == {str(each.id): above and str(above.id) for each, above in expected.items()}


def test_pages_follow_each_other_without_a_gap() -> None:
    row = run(two_look_ups())
    found: list[str] = []
    after: dict[str, Any] = {}
    while True:
        page = get(row.agent_id, page_size=4, **after)
        found += [each["id"] for each in page["items"]]
        if not page["has_more"]:
            break
        after = {"after": found[-1]}
    assert found == [str(each.id) for each in AgentCall.objects.of(row.agent_id)]


def test_a_page_ends_when_its_content_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_of_calls, "__kwdefaults__", {**(page_of_calls.__kwdefaults__ or {}), "max_bytes": 50_000})
    row = Activity.objects.get(pk=activity.create("t"))
    calls = [
        add_call(row, CallKind.TOOL, ordinal=number, output="x" * (80_000 if number == 5 else 20_000))
        for number in range(6)
    ]

    first = get(row.agent_id)
    second = get(row.agent_id, after=first["items"][-1]["id"])
    pages = [[each["id"] for each in page["items"]] for page in (first, second)]
    assert (first["has_more"], second["has_more"]) == (True, False)

    assert [len(ids) for ids in pages] == [3, 3]
    assert [each for ids in pages for each in ids] == [str(each.id) for each in calls]
    assert len(get(row.agent_id, content=False)["items"]) == 6


def test_the_parents_of_a_page_are_found_without_reading_all_calls() -> None:
    row = Activity.objects.get(pk=activity.create("t"))
    outer = add_call(row, CallKind.AGENT, path="step")
    tool = add_call(row, CallKind.TOOL, path="step", ordinal=3, call_id="c")
    for number in range(10):
        add_call(row, CallKind.TOOL, path="step", ordinal=number, call_id="other")
        add_call(row, CallKind.AGENT, path=f"step~{number + 2}")
    long = joined("step/3:c", "^" + "g" * 495)
    inner = [add_call(row, CallKind.AGENT, path="step/3:c"), add_call(row, CallKind.AGENT, path=long)]
    inner += [add_call(row, CallKind.ONCE, path="step/3:c"), add_call(row, CallKind.MODEL, path="step/3:c")]

    found = parents_of([tool, *inner])

    assert {each.pk for each in found if each.kind == CallKind.AGENT} == {outer.pk, inner[0].pk}
    assert tool.pk in {each.pk for each in found}
    few = parents_of([inner[0], inner[2]])
    assert {(each.ordinal, each.path) for each in few} == {(3, "step")}
    parents = Parents(found)
    assert [parents.of(each) for each in (outer, tool, *inner)][:3] == [None, outer.pk, tool.pk]
    assert [parents.of(each) for each in inner[2:]] == [tool.pk, inner[0].pk]
    assert parents_of([]) == []


def test_calls_are_filtered() -> None:
    row = run(two_look_ups())
    assert {each["kind"] for each in get(row.agent_id, kind="tool")["items"]} == {"tool"}
    assert len(get(row.agent_id, name="look_up")["items"]) == 2
    assert get(row.agent_id, state="failed")["items"] == []
    AgentCall.objects.filter(kind=CallKind.TOOL).update(set_aside=1)
    assert len(get(row.agent_id, kind="tool")["items"]) == 2
    assert get(row.agent_id, kind="tool", current=True)["items"] == []
    assert {each["output"] for each in get(row.agent_id, content=False)["items"]} == {None}


@pytest.mark.parametrize("wrong", [{"after": "7"}, {"kind": "x"}, {"page_size": 201}, {"models": "x"}])
def test_an_impossible_parameter_is_refused(wrong: dict[str, Any]) -> None:
    agent_id = activity.create("t")
    assert client(admin()).get(url(agent_id), wrong).status_code == 400


def test_a_foreign_tenant_finds_nothing(settings: Any) -> None:
    settings.AGENTEXEC = {"POLICY": POLICY}
    row = run(two_look_ups(), organization_id="org-1")
    first = AgentCall.objects.of(row.agent_id)[0]
    own, foreign = client(member("org-1")), client(member("org-2"))
    other = run(two_look_ups(), organization_id="org-2")
    assert own.get(url(row.agent_id)).status_code == own.get(url(row.agent_id, first.id)).status_code == 200
    assert foreign.get(url(row.agent_id)).status_code == foreign.get(url(row.agent_id, first.id)).status_code == 404
    # Nor through a different activity.
    assert foreign.get(url(other.agent_id, first.id)).status_code == 404
    assert foreign.get("/agents/activities/", {"tool": "look_up"}).json()["total"] == 1


def test_errors_are_public_without_the_monitor_permission(settings: Any) -> None:
    settings.AGENTEXEC = {"POLICY": POLICY, "TRACE_REQUESTS": True}
    scripted = ScriptedModel([[call("explode", "1", name="x")], ConnectionError("host=db.internal")])
    row = run(scripted, organization_id="org-1")
    text = "An error occurred while running the tool. Please try again. Error: password=hunter2"
    AgentCall.objects.filter(kind=CallKind.TOOL).update(output=text)  # as releases of the SDK before 0.24 answer
    assert "hunter2" in str(get(row.agent_id))
    assert "db.internal" in str(get(row.agent_id))
    seen = get(row.agent_id, user=(user := member("org-1")))
    assert "hunter2" not in str(seen)
    assert "db.internal" not in str(seen)
    failed = next(each for each in seen["items"] if each["state"] == CallState.FAILED)
    assert failed["error"].startswith("ConnectionError: An internal error")
    model = next(each for each in seen["items"] if each["kind"] == CallKind.MODEL)
    detail = client(user).get(url(row.agent_id, model["id"])).json()
    assert (detail["request"], detail["hidden"]) == (None, ["request"])
    assert client(admin()).get(url(row.agent_id, model["id"])).json()["request"]["input"]


def test_one_call_has_its_own_address() -> None:
    row = run(two_look_ups())
    tool = AgentCall.objects.of(row.agent_id).get(call_id="1")
    answer = client(admin()).get(url(row.agent_id, tool.id)).json()
    assert (answer["id"], answer["arguments"], answer["request"]) == (str(tool.id), {"name": "Acme"}, None)
    assert client(admin()).get(url(row.agent_id, uuid4())).status_code == 404
    assert client(admin()).get(url(row.agent_id, "x")).status_code == 404


@pytest.mark.parametrize("count", [3, 60])
def test_the_number_of_queries_does_not_depend_on_the_calls(count: int) -> None:
    row = Activity.objects.get(pk=activity.create("t"))
    for number in range(count):
        add_call(row, CallKind.TOOL, ordinal=number, output="x" * 100)
    who = client(admin())
    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert who.get(url(row.agent_id)).status_code == 200
    assert len(queries) == 6  # session, user, activity, calls, runs that made them, content


def listed(**parameters: Any) -> list[UUID]:
    answer = client(admin()).get("/agents/activities/", parameters)
    assert answer.status_code == 200, answer.json()
    return [UUID(item["agent_id"]) for item in answer.json()["items"]]


def test_activities_are_found_by_model_tool_and_cost() -> None:
    cheap, dear, unknown = (activity.create("t") for _ in range(3))
    for agent_id, cost in ((cheap, "0.01"), (dear, "2.5")):
        Activity.objects.filter(pk=agent_id).update(cost=Decimal(cost))
    add_call(Activity.objects.get(pk=cheap), CallKind.MODEL, name="small")
    add_call(Activity.objects.get(pk=dear), CallKind.TOOL, name="small")
    assert listed(model="small") == [cheap]
    assert listed(tool="small") == [dear]
    assert listed(tool="none") == []
    assert listed(min_cost="1") == [dear]
    assert listed(max_cost="1.5") == [cheap]
    assert listed(ordering="-cost") == [dear, cheap]
    assert listed(ordering="cost") == [cheap, dear]
    assert unknown in listed()
    (item,) = client(admin()).get("/agents/activities/", {"min_cost": 1}).json()["items"]
    assert Decimal(item["cost"]) == Decimal("2.5")
    for wrong in ("-1", "x", "NaN", "1e99"):
        assert client(admin()).get("/agents/activities/", {"min_cost": wrong}).status_code == 400


@pytest.mark.skipif(connection.vendor != "postgresql", reason="PostgreSQL's planner")
def test_lists_by_tool_and_cost_use_their_indexes() -> None:
    Activity.objects.bulk_create(Activity(agent_type="t", status="complete", cost=n) for n in range(5_000))
    rows = list(Activity.objects.all())
    AgentCall.objects.bulk_create(
        AgentCall(activity=each, kind="tool", name="rare" if number < 3 else "often")
        for number, each in enumerate(rows)
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE agentexec_activity, agentexec_call")
    who = client(admin())
    plans = {}
    for name, value in (("tool", "rare"), ("ordering", "-cost")):
        with CaptureQueriesContext(connection) as queries:
            assert who.get("/agents/activities/", {name: value}).status_code == 200
        (sql,) = [query["sql"] for query in queries if "LIMIT 50" in query["sql"]]
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN {sql}")
            plans[name] = "\n".join(line for (line,) in cursor.fetchall())
    assert "agentexec_call_name" in plans["tool"], plans["tool"]
    assert "agentexec_cost" in plans["ordering"], plans["ordering"]
    assert not any("Seq Scan" in plan for plan in plans.values()), plans


def test_a_retry_over_rest_is_fresh_on_request() -> None:
    row = run(two_look_ups(), fails=1)
    answer = client(admin()).post(f"/agents/activities/{row.agent_id}/retry/", {"fresh": True}, format="json")
    assert answer.status_code == 202, answer.json()
    assert not AgentCall.objects.of(row.agent_id).current().exists()


def test_a_retry_over_rest_keeps_the_calls_by_default() -> None:
    row = run(ScriptedModel([say("Done.")]), fails=1)
    assert client(admin()).post(f"/agents/activities/{row.agent_id}/retry/").status_code == 202
    assert AgentCall.objects.of(row.agent_id).current().exists()
