"""The median cost of runs, what replays have saved, and the most expensive runs."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db import connection

from django_agentexec.costs import usage as usage_module
from django_agentexec.costs.period import Period
from django_agentexec.costs.runs import expensive_runs, median_costs, replayed_cost
from django_agentexec.costs.usage import calls_of, usage_report
from django_agentexec.models import Activity, CallKind, CallState, Status
from tests.support.priced_calls import at, call, child_of, run_of

pytestmark = pytest.mark.django_db

NOVEMBER = Period.of(date(2026, 11, 1), date(2026, 11, 30), ZoneInfo("UTC"))


def found_calls() -> Any:
    return calls_of(Activity.objects.all(), NOVEMBER)


def medians(group_by: str, **options: Any) -> dict[str | None, Decimal | None]:
    report = usage_report(Activity.objects.all(), NOVEMBER, group_by, **options)
    return {group.key: group.median_cost for group in report.groups}


def runs_with(costs: list[str | None], task: str = "answer", **metadata: Any) -> None:
    for cost in costs:
        call(run_of(task, **metadata), cost=cost)


@pytest.mark.parametrize(
    ("costs", "median"),
    [
        (["0.5"], "0.5"),
        (["1", "3"], "2"),
        (["9", "1", "2"], "2"),
        (["1", "1", "2", "100"], "1.5"),
        (["1", "1", "1", "100", "100"], "1"),
        (["0.0000000001", None], "0.0000000001"),
        ([None], None),
        ([], None),
    ],
)
def test_the_median_is_that_of_the_runs_with_a_known_cost(costs: list[str | None], median: str | None) -> None:
    runs_with(costs)

    found = median_costs(found_calls()).get(None)
    assert found == (None if median is None else Decimal(median))


def test_the_calls_of_a_run_are_added_before_the_median() -> None:
    owner = run_of("answer")
    for cost in ("1", "2", "4"):
        call(owner, cost=cost)
    runs_with(["3"])

    report = usage_report(Activity.objects.all(), NOVEMBER, "task")
    assert (report.groups[0].median_cost, report.totals.median_cost) == (Decimal(5), Decimal(5))


def test_each_group_has_its_median() -> None:
    runs_with(["1", "3", "8"], "answer", org="a")
    runs_with(["10"], "report")
    runs_with([None], "house", org=7)
    call(run_of("report"), "gpt-5-mini", "20", started_at=at(2))

    assert medians("task") == {"answer": Decimal(3), "report": Decimal(15), "house": None}
    assert medians("model") == {"gpt-5": Decimal("5.5"), "gpt-5-mini": Decimal(20)}
    assert medians("metadata.org") == {"a": Decimal(3), None: Decimal(15), "7": None}
    assert medians("day") == {"2026-11-02": Decimal(20), "2026-11-10": Decimal("5.5")}


def test_medians_of_groups_beyond_the_list_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_module, "MAX_GROUPS", 2)
    for number, org in enumerate(("a", "b", "c")):
        runs_with([str(number + 1)], org=org)
    runs_with(["9"])

    assert medians("metadata.org") == {None: Decimal(9), "c": Decimal(3)}


def test_no_activities_have_no_median() -> None:
    assert median_costs(calls_of(Activity.objects.none(), NOVEMBER)) == {}


def test_replays_save_what_the_last_attempt_of_a_complete_run_has_read() -> None:
    complete, failed, single = run_of(), run_of(), run_of()
    Activity.objects.filter(pk=complete.pk).update(status=Status.COMPLETE, attempt=3)
    Activity.objects.filter(pk=failed.pk).update(status=Status.ERROR, attempt=3)
    Activity.objects.filter(pk=single.pk).update(status=Status.COMPLETE, attempt=1)
    call(complete, cost="1", attempt=1)
    call(complete, cost="2", attempt=2)
    call(complete, cost="4", attempt=3)  # made by the last attempt
    call(complete, cost="8", attempt=1, set_aside=2)  # made again
    call(complete, cost="16", attempt=1, state=CallState.FAILED)
    call(complete, cost=None, attempt=1)
    call(failed, cost="32", attempt=1)
    call(single, cost="64", attempt=1)

    assert replayed_cost(found_calls()) == Decimal(3)
    assert usage_report(Activity.objects.all(), NOVEMBER, "task").totals.replayed_cost == Decimal(3)


def test_expensive_runs_with_what_has_made_them_expensive(django_assert_num_queries: Any) -> None:
    dear, cheap = run_of("answer"), run_of("report")
    call(dear, "gpt-5", "3", cached_tokens=400)
    call(dear, "gpt-5-mini", "1", set_aside=2)
    call(dear, "house", None)
    call(dear, "look_up", kind=CallKind.TOOL)
    for _number in range(2):
        call(dear, "search", kind=CallKind.TOOL)
    call(cheap, cost="2")
    call(run_of(), cost="1")
    call(child_of(dear), cost="0.5")

    with django_assert_num_queries(4):
        (first, run), (second, _other) = expensive_runs(Activity.objects.all(), found_calls(), 2)

    assert (first.pk, second.pk, second.agent_type) == (dear.pk, cheap.pk, "report")
    assert run.model_dump(exclude={"agent_id", "agent_type", "attempts"}) == {
        "cost": Decimal(4), "calls": 3, "repeated_calls": 1, "input_tokens": 3_000, "cached_tokens": 400,
        "output_tokens": 600, "largest_call": Decimal(3), "models": ["gpt-5", "gpt-5-mini", "house"],
        "tool": "search", "tool_calls": 2,
    }  # fmt: skip


def test_expensive_runs_are_those_of_the_given_activities() -> None:
    call(run_of(org="b"), cost="9")
    ours = run_of(org="a")
    call(ours, cost="1")
    activities = Activity.objects.for_metadata(org="a")

    assert [run.agent_id for _, run in expensive_runs(activities, calls_of(activities, NOVEMBER), 5)] == [ours.pk]
    assert expensive_runs(Activity.objects.none(), calls_of(Activity.objects.none(), NOVEMBER), 5) == []


def test_a_price_that_is_withdrawn_meanwhile_is_no_error() -> None:
    call(run_of(), cost="1")
    calls, withdrawn = found_calls(), []

    def withdraw(execute: Any, *arguments: Any) -> Any:
        answer = execute(*arguments)
        if not withdrawn:
            withdrawn.append(True)
            Activity.objects.get().calls.update(cost=None)
        return answer

    with connection.execute_wrapper(withdraw):
        ((_activity, run),) = expensive_runs(Activity.objects.all(), calls, 5)

    assert (run.cost, run.largest_call) == (Decimal(1), Decimal(0))
