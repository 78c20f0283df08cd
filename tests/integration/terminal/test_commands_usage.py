"""`manage.py agentexec usage`: the report as a table, CSV and JSON, and prices for past calls."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal

import pytest

from django_agentexec.models import ModelPrice
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
        ["answer", "2", "2", "2,000", "0", "400", "0.0025", "+", "unpriced"],
        ["report", "1", "1", "1,000", "0", "200", "unpriced"],
        ["total", "3", "3", "3,000", "0", "600", "0.0025", "+", "unpriced"],
    ]
    assert "From 2026-11-01 to 2026-11-30, UTC." in answer.err
    assert "2 calls with 2,400 tokens have no price" in answer.err


def test_csv_and_json() -> None:
    record(run_of("answer", org="a"), "gpt-5", "0.0025", started_at=at(3))

    assert call("agentexec", "usage", "--csv", "--by", "metadata.org", *NOVEMBER).out.splitlines()[1:] == [
        "a,1,1,1000,0,200,0,1200,0.0025,0,0",
        "total,1,1,1000,0,200,0,1200,0.0025,0,0",
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

    assert call("agentexec", "usage", "--reprice").out == "1 of 2 calls without a price were priced.\n"
    assert ",0.002,1,1200" in call("agentexec", "usage", "--csv", *NOVEMBER).out
