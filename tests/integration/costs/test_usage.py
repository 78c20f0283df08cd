"""Usage and cost by day, task, model and metadata; of an activity with its children; and prices set later."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from asgiref.sync import sync_to_async
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_agentexec import InvalidOption
from django_agentexec.costs import usage as usage_module
from django_agentexec.costs.period import MAX_DAYS, Period, zone_of
from django_agentexec.costs.reprice import areprice, reprice
from django_agentexec.costs.usage import calls_of, tree_usage, usage_csv, usage_report
from django_agentexec.models import Activity, AgentCall, CallKind, CallState, ModelPrice
from tests.support.priced_calls import at, call, child_of, run_of

pytestmark = pytest.mark.django_db

NOVEMBER = Period.of(date(2026, 11, 1), date(2026, 11, 30), ZoneInfo("UTC"))


def report(group_by: str, period: Period = NOVEMBER, activities: Any = None) -> Any:
    return usage_report(Activity.objects.all() if activities is None else activities, period, group_by)


def costs(group_by: str, **options: Any) -> dict[str | None, Decimal | None]:
    return {group.key: group.cost for group in report(group_by, **options).groups}


def test_usage_by_task_model_metadata_and_day() -> None:
    first, second = run_of("answer", org="a", n=1), run_of("report", org="b", n=True)
    call(first, "gpt-5", "0.5", started_at=at(2), cached_tokens=400, reasoning_tokens=50)
    call(first, "gpt-5-mini", "0.25", started_at=at(3))
    call(second, "gpt-5", "0.125", started_at=at(3))
    call(run_of("answer"), "gpt-5", "1", started_at=at(1, month=12))

    assert costs("task") == {"answer": Decimal("0.75"), "report": Decimal("0.125")}
    assert costs("model") == {"gpt-5": Decimal("0.625"), "gpt-5-mini": Decimal("0.25")}
    assert costs("metadata.org") == {"a": Decimal("0.75"), "b": Decimal("0.125")}
    assert costs("metadata.n") == {"1": Decimal("0.75"), "true": Decimal("0.125")}
    assert costs("metadata.0") == {None: Decimal("0.875")}
    assert costs("metadata.o'r\"g") == {None: Decimal("0.875")}
    assert costs("day") == {"2026-11-02": Decimal("0.5"), "2026-11-03": Decimal("0.375")}
    found = report("task")
    assert (found.groups[0].calls, found.groups[0].runs, found.groups[0].total_tokens) == (2, 1, 2_400)
    assert (found.totals.calls, found.totals.runs, found.totals.cost) == (3, 2, Decimal("0.875"))
    assert (found.totals.cached_tokens, found.totals.reasoning_tokens) == (400, 50)


def test_days_are_those_of_the_time_zone() -> None:
    owner = run_of()
    call(owner, cost="1", started_at=at(9, 23))
    kiritimati = Period.of(date(2026, 11, 10), date(2026, 11, 10), ZoneInfo("Pacific/Kiritimati"))

    assert costs("day", period=kiritimati) == {"2026-11-10": Decimal(1)}
    assert costs("day") == {"2026-11-09": Decimal(1)}


def test_unpriced_calls_are_counted_and_never_free() -> None:
    owner = run_of()
    call(owner, "gpt-5", "0.5")
    call(owner, "house")
    call(owner, "house")

    groups = {group.key: group for group in report("model").groups}
    assert (groups["house"].cost, groups["house"].unpriced_calls, groups["house"].unpriced_tokens) == (None, 2, 2_400)
    assert (groups["gpt-5"].cost, groups["gpt-5"].unpriced_tokens) == (Decimal("0.5"), 0)
    totals = report("model").totals
    assert (totals.cost, totals.unpriced_calls, totals.unpriced_tokens) == (Decimal("0.5"), 2, 2_400)
    assert report("task", period=Period.of(date(2026, 1, 1), date(2026, 1, 2))).totals.cost == 0


def test_only_answered_calls_of_models_count_and_those_set_aside_do() -> None:
    owner = run_of()
    call(owner, cost="1", set_aside=3)
    call(owner, "look_up", kind=CallKind.TOOL)
    call(owner, "Clerk", kind=CallKind.AGENT)
    call(owner, state=CallState.STARTED)
    call(owner, state=CallState.FAILED, input_tokens=0, output_tokens=0)

    assert (report("task").totals.calls, report("task").totals.cost) == (1, Decimal(1))


def test_a_failed_call_counts_if_its_provider_has_reported_tokens() -> None:
    owner = run_of()
    call(owner, cost="0.5", state=CallState.FAILED)
    call(owner, state=CallState.FAILED)

    totals = report("task").totals
    assert (totals.calls, totals.cost, totals.unpriced_calls, totals.input_tokens) == (2, Decimal("0.5"), 1, 2_000)


def test_only_given_activities_are_included() -> None:
    call(run_of(org="a"), cost="1")
    call(run_of(org="b"), cost="2")

    assert costs("task", activities=Activity.objects.for_metadata(org="b")) == {"import": Decimal(2)}
    assert costs("task", activities=Activity.objects.none()) == {}


@pytest.mark.parametrize("group_by", ["day", "task", "model", "metadata.org"])
def test_a_report_takes_six_queries(group_by: str, django_assert_num_queries: Any) -> None:
    for number in range(5):
        call(run_of(f"task-{number}", org=f"o-{number}"), f"model-{number}", "1", started_at=at(number + 1))
    with django_assert_num_queries(6):
        assert len(report(group_by).groups) == 5


def test_groups_are_bounded_and_totals_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_module, "MAX_GROUPS", 2)
    for number in range(4):
        call(run_of(f"task-{number}"), cost=str(number))

    found = report("task")
    assert [group.key for group in found.groups] == ["task-3", "task-2"]
    assert (found.has_more_groups, found.totals.cost) == (True, Decimal(6))


@pytest.mark.parametrize("group_by", ["", "tenant", "metadata.", "metadata", "metadata.a\0b", f"metadata.{'x' * 201}"])
def test_an_unknown_group_is_refused(group_by: str) -> None:
    with pytest.raises(InvalidOption, match="is not a group"):
        report(group_by)


def test_impossible_periods_are_refused() -> None:
    with pytest.raises(InvalidOption, match="is empty"):
        Period.of(date(2026, 2, 1), date(2026, 1, 1))
    with pytest.raises(InvalidOption, match=f"at most {MAX_DAYS}"):
        Period.of(date(2020, 2, 1), date(2026, 1, 1))
    with pytest.raises(InvalidOption, match="is empty"):
        Period.of(None, date(1, 1, 1))
    for name in ("", "Mars/Olympus", "../../etc/passwd", "Europe"):
        with pytest.raises(InvalidOption, match="is not a time zone"):
            zone_of(name)


def test_the_day_of_the_change_of_the_clock_is_complete() -> None:
    berlin = Period.of(date(2026, 10, 25), date(2026, 10, 25), zone_of("Europe/Berlin"))
    assert (berlin.end - berlin.start).total_seconds() == 24 * 3_600  # of the wall clock
    call(run_of(), cost="1", started_at=at(24, 22, month=10))  # 00:00 in Berlin
    call(run_of(), cost="2", started_at=at(25, 22, month=10))  # 23:00 in Berlin
    call(run_of(), cost="4", started_at=at(25, 23, month=10))  # 00:00 of the next day

    assert costs("day", period=berlin) == {"2026-10-25": Decimal(3)}


@pytest.mark.skipif(connection.vendor != "postgresql", reason="the planner of PostgreSQL")
def test_a_report_reads_the_index_by_time() -> None:
    owner = run_of()
    AgentCall.objects.bulk_create(
        AgentCall(activity=owner, kind=kind, ordinal=number, state="done", name="m", started_at=at(1 + number % 28))
        for kind in (CallKind.MODEL, CallKind.TOOL)
        for number in range(3_000)
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE agentexec_call")
    day = Period.of(date(2026, 11, 5), date(2026, 11, 5), ZoneInfo("UTC"))

    assert "agentexec_call_model" in calls_of(Activity.objects.all(), day).explain()


def test_csv_contains_groups_and_totals_and_no_formula() -> None:
    call(run_of(org="=1+1"), cost="0.0025000000")
    call(run_of(org="a,b"), "house")

    lines = usage_csv(report("metadata.org")).splitlines()
    assert lines[0].startswith("metadata.org,calls,runs,input_tokens")
    assert lines[1:] == [
        "'=1+1,1,1,1000,0,200,0,1200,0.0025,0,0,0.0025",
        '"a,b",1,1,1000,0,200,0,1200,,1,1200,',
        "total,2,2,2000,0,400,0,2400,0.0025,1,1200,0.0025",
    ]


def test_the_usage_of_an_activity_includes_its_children_and_retries() -> None:
    parent = run_of("plan", org="a")
    child = child_of(parent, org="a")
    grandchild, foreign = child_of(child, org="a"), child_of(child, org="b")
    call(parent, "gpt-5", "1", attempt=1, set_aside=2)
    call(parent, "gpt-5", "2", attempt=2)
    call(child, "gpt-5-mini", "4")
    call(grandchild, "house")
    call(foreign, "gpt-5", "8")
    call(run_of(), "gpt-5", "16")

    with CaptureQueriesContext(connection) as queries:
        totals, models = tree_usage(parent.pk, Activity.objects.for_metadata(org="a"))

    assert len(queries) == 3
    assert (totals.cost, totals.runs, totals.unpriced_calls) == (Decimal(7), 3, 1)
    assert {model.key: model.cost for model in models} == {
        "gpt-5": Decimal(3), "gpt-5-mini": Decimal(4), "house": None
    }  # fmt: skip
    assert tree_usage(parent.pk, Activity.objects.all())[0].cost == Decimal(15)


@pytest.mark.django_db(transaction=True)
async def test_the_async_version_yields_the_numbers_of_each_batch() -> None:
    owner = await sync_to_async(run_of)()
    for _ in range(3):
        await sync_to_async(call)(owner, "house")

    assert [numbers async for numbers in areprice(batch_size=2)] == [(2, 0), (1, 0)]


def test_calls_get_a_price_that_is_set_later() -> None:
    owner, other = run_of(), run_of()
    Activity.objects.filter(pk=owner.pk).update(cost=Decimal("0.5"))
    known = call(owner, "house", "0.5")
    calls = [call(owner, "house"), call(owner, "house"), call(other, "house"), call(other, "nameless")]
    call(other, "house", kind=CallKind.TOOL)
    assert sum(priced for _, priced in reprice()) == 0
    ModelPrice.objects.create(
        pattern="house", valid_from=date(2026, 1, 1), input_price=Decimal(100), output_price=Decimal(0)
    )

    assert list(reprice(batch_size=3)) == [(3, 3), (1, 0)]
    assert list(reprice()) == [(1, 0)]

    assert [AgentCall.objects.get(pk=each.pk).cost for each in [known, *calls]] == [
        Decimal("0.5"), Decimal("0.1"), Decimal("0.1"), Decimal("0.1"), None
    ]  # fmt: skip
    stored = [Activity.objects.get(pk=each.pk).cost for each in (owner, other)]
    assert stored == [Decimal("0.7"), Decimal("0.1")]
