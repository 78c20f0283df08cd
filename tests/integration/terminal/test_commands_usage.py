"""`manage.py agentexec usage`: the report as a table, CSV and JSON, and prices for past calls."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal

import pytest

from django_agentexec.models import Activity, CallKind, ModelPrice, Status
from tests.support.management_commands import call
from tests.support.priced_calls import at, run_of
from tests.support.priced_calls import call as record

pytestmark = pytest.mark.django_db

NOVEMBER = ("--from", "2026-11-01", "--to", "2026-11-30")


def test_the_table_names_what_is_unpriced() -> None:
    record(run_of("answer"), "gpt-5", "0.0025", started_at=at(3))
    record(run_of("answer"), "house", started_at=at(3))
    record(run_of("report"), "house", started_at=at(4))

    answer = call("agentexec", "usage", "--by", "task", *NOVEMBER)

    assert answer.code == 0, answer
    lines = [line.split() for line in answer.out.splitlines()]
    assert lines[1:] == [
        ["answer", "2", "2", "2,000", "0", "400", "$0.0025", "+", "unpriced", "$0.0025"],
        ["report", "1", "1", "1,000", "0", "200", "unpriced", "-"],
        ["total", "3", "3", "3,000", "0", "600", "$0.0025", "+", "unpriced", "$0.0025"],
    ]
    assert "From 2026-11-01 to 2026-11-30, UTC." in answer.err
    assert "2 calls with 2,400 tokens have no price" in answer.err


def test_csv_and_json() -> None:
    record(run_of("answer", org="a"), "gpt-5", "0.0025", started_at=at(3))

    assert call("agentexec", "usage", "--csv", "--by", "metadata.org", *NOVEMBER).out.splitlines()[1:] == [
        "a,1,1,1000,0,200,0,1200,0.0025,0,0,0.0025",
        "total,1,1,1000,0,200,0,1200,0.0025,0,0,0.0025",
    ]
    report = json.loads(call("agentexec", "usage", "--json", "--time-zone", "Europe/Berlin", *NOVEMBER).out)
    assert (report["groups"][0]["key"], report["time_zone"]) == ("2026-11-03", "Europe/Berlin")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--by", "tenant"), "'tenant' is not a group"),
        (("--from", "yesterday"), "'yesterday' is not a day"),
        (("--from", "2026-12-01", "--to", "2026-11-30"), "is empty"),
        (("--time-zone", "Mars/Olympus"), "'Mars/Olympus' is not a time zone"),
        (("--reprice", "--from", "2026-12-01"), "leave --from out"),
        (("--reprice", "--metadata", "org=a"), "leave --metadata out"),
        (("--reprice", "--runs"), "leave --runs out"),
        (("--reprice", "--by", "task"), "leave --by out"),
        (("--runs", "5", "--by", "task"), "leave --by out"),
        (("--batch-size", "5"), "--batch-size requires --reprice"),
        (("--runs", "0"), "'0' is not a positive whole number"),
    ],
)
def test_impossible_arguments_are_refused(arguments: tuple[str, ...], text: str) -> None:
    answer = call("agentexec", "usage", *arguments)
    assert (answer.code in (1, 2), text in answer.err) == (True, True), answer


def test_past_calls_are_priced() -> None:
    record(run_of(), "house", started_at=at(3))
    record(run_of(), "nameless", started_at=at(3))
    ModelPrice.objects.create(
        pattern="house", valid_from=date(2026, 1, 1), input_price=Decimal(1), output_price=Decimal(5)
    )

    assert call("agentexec", "usage", "--reprice").out == "1 of 2 calls without a price was priced.\n"
    assert ",0.002,1,1200,0.002" in call("agentexec", "usage", "--csv", *NOVEMBER).out


def test_amounts_have_at_least_two_decimals() -> None:
    record(run_of("answer"), "gpt-5", "0.1", started_at=at(3))

    assert "$0.10" in call("agentexec", "usage", *NOVEMBER).out


def test_the_table_of_runs_names_what_has_made_them_expensive() -> None:
    dear, cheap = run_of("answer"), run_of("report")
    record(dear, "gpt-5", "0.4", started_at=at(3))
    record(dear, "gpt-5-mini", "0.1", started_at=at(3))
    for _number in range(12):
        record(dear, "search_orders", kind=CallKind.TOOL, started_at=at(3))
    record(cheap, "gpt-5", "0.2", started_at=at(3))

    answer = call("agentexec", "usage", "--runs", *NOVEMBER)

    first, second = answer.out.splitlines()[1:]
    for part in (str(dear.pk), "answer", "$0.50", "2,400", "gpt-5, gpt-5-mini", "search_orders was called 12 times"):
        assert part in first, (part, answer)
    assert "one call cost $0.40" in first
    assert second.split()[:3] == [str(cheap.pk), "report", "$0.20"]
    listed = json.loads(call("agentexec", "usage", "--runs", "1", "--json", *NOVEMBER).out)
    assert [(run["agent_id"], run["cost"], run["tool_calls"]) for run in listed] == [(str(dear.pk), "0.5", 12)]


def test_usage_of_one_tenant() -> None:
    record(run_of("answer", org="a"), "gpt-5", "1", started_at=at(3))
    record(run_of("report", org="b"), "gpt-5", "2", started_at=at(3))

    assert "report" not in call("agentexec", "usage", "--by", "task", "--metadata", "org=a", *NOVEMBER).out
    assert "report" not in call("agentexec", "usage", "--runs", "--metadata", "org=a", *NOVEMBER).out


def test_runs_have_no_csv() -> None:
    answer = call("agentexec", "usage", "--runs", "--csv", *NOVEMBER)
    assert (answer.code, "--runs has no CSV" in answer.err) == (2, True)


def test_savings_of_replays_are_named() -> None:
    owner = run_of()
    Activity.objects.filter(pk=owner.pk).update(status=Status.COMPLETE, attempt=2)
    record(owner, "gpt-5", "0.5", started_at=at(3), attempt=1)

    assert "Replays have saved $0.50" in call("agentexec", "usage", *NOVEMBER).err
