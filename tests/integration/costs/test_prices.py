"""Prices: the same results as genai-prices, rows that override them, and unknown prices."""

from __future__ import annotations

import sys
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, OperationalError, transaction
from django.test import override_settings
from genai_prices import Usage, calc_price

from django_agentexec.costs import prices
from django_agentexec.costs.library import provider_of_url
from django_agentexec.costs.prices import cost_of, rates_of
from django_agentexec.models import AgentCall, ModelPrice
from tests.support.priced_calls import at

pytestmark = pytest.mark.django_db


def unsaved(name: str, provider: str = "", day: int = 10, **tokens: int) -> AgentCall:
    counts = {"input_tokens": 1_000, "cached_tokens": 600, "output_tokens": 200, **tokens}
    return AgentCall(name=name, provider=provider, started_at=at(day), **counts)


def price(pattern: str, given: str = "1", output: str = "2", **values: Any) -> ModelPrice:
    row = ModelPrice(
        pattern=pattern,
        input_price=Decimal(given),
        output_price=Decimal(output),
        **{"valid_from": date(2026, 1, 1), **values},
    )
    row.full_clean()
    row.save()
    return row


@pytest.mark.parametrize(
    ("name", "provider"),
    [
        ("gpt-5", "openai"),
        ("gpt-5-mini-2025-08-07", "openai"),
        ("gpt-4o-mini", ""),
        ("claude-sonnet-4-5", "anthropic"),
        ("gemini-2.5-pro", "google"),
        ("deepseek-chat", "deepseek"),
    ],
)
@pytest.mark.parametrize("tokens", [(1_000, 600, 200), (1, 0, 1), (123_457, 99_991, 8_191), (250_000, 10_000, 5_000)])
def test_costs_equal_those_of_genai_prices(name: str, provider: str, tokens: tuple[int, int, int]) -> None:
    given, cached, output = tokens
    expected = calc_price(
        Usage(input_tokens=given, cache_read_tokens=cached, output_tokens=output),
        name,
        provider_id=provider or None,
        genai_request_timestamp=at(10),
    ).total_price

    cost = cost_of(unsaved(name, provider, input_tokens=given, cached_tokens=cached, output_tokens=output))

    assert cost is not None
    assert abs(cost - expected) <= Decimal("0.00000000005")
    assert cost > 0


def test_a_name_of_litellm_has_the_price_of_its_provider() -> None:
    assert cost_of(unsaved("anthropic/claude-sonnet-4-5")) == cost_of(unsaved("claude-sonnet-4-5", "anthropic"))


@pytest.mark.parametrize(("name", "provider"), [("no-such-model", ""), ("gpt-5", "localhost:8000"), ("", "")])
def test_an_unknown_price_is_none(name: str, provider: str) -> None:
    assert cost_of(unsaved(name, provider)) is None
    assert rates_of(name, provider, at(10)) is None


def test_tokens_that_were_not_reported_have_no_cost() -> None:
    assert cost_of(unsaved("gpt-5", "openai", input_tokens=0, cached_tokens=0, output_tokens=0)) is None


def test_a_row_overrides_the_library() -> None:
    price("gpt-5", "10", "20", cached_price=Decimal("1"))

    assert cost_of(unsaved("GPT-5", "openai")) == Decimal("0.0086")  # (400 * 10 + 600 * 1 + 200 * 20) / 1,000,000


def test_cached_tokens_have_the_input_price_unless_the_row_names_one() -> None:
    price("local-*", "10", "0")

    assert cost_of(unsaved("vendor/local-7b", "localhost:8000")) == Decimal("0.01")


def test_a_free_model_costs_nothing() -> None:
    price("local-*", "0", "0")

    assert cost_of(unsaved("local-7b")) == 0


def test_the_most_specific_row_applies() -> None:
    price("*", "1", "0")
    price("gpt-5*", "2", "0")
    price("gpt-5-mini", "3", "0")
    price("gpt-5-mini", "4", "0", provider="azure")

    names = [("other", ""), ("gpt-5-nano", ""), ("gpt-5-mini", "openai"), ("gpt-5-mini", "azure")]
    assert [cost_of(unsaved(*name)) for name in names] == [Decimal(n) / 1_000 for n in (1, 2, 3, 4)]


def test_a_price_counts_from_its_day_on() -> None:
    price("house", "1", "0", valid_from=date(2026, 11, 5))
    price("house", "2", "0", valid_from=date(2026, 11, 10))

    costs = [cost_of(unsaved("house", day=day)) for day in (4, 5, 9, 10)]
    assert costs == [None, Decimal("0.001"), Decimal("0.001"), Decimal("0.002")]


@override_settings(TIME_ZONE="Pacific/Kiritimati")  # UTC+14: the 10th begins at 10:00 UTC on the 9th
def test_the_day_of_a_price_is_that_of_the_settings() -> None:
    price("house", "1", "0", valid_from=date(2026, 11, 10))
    early, late = unsaved("house"), unsaved("house")
    early.started_at, late.started_at = at(9, 9), at(9, 11)

    assert [cost_of(early), cost_of(late)] == [None, Decimal("0.001")]


def test_rows_are_read_once_and_changes_take_effect_at_once(django_assert_num_queries: Any) -> None:
    row = price("house", "1", "0")
    with django_assert_num_queries(1):
        assert [cost_of(unsaved("house")) for _ in range(3)] == [Decimal("0.001")] * 3

    row.input_price = Decimal(5)
    row.save()
    assert cost_of(unsaved("house")) == Decimal("0.005")
    row.delete()
    assert cost_of(unsaved("house")) is None


def test_changes_of_another_process_take_effect_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    price("house", "1", "0")
    assert cost_of(unsaved("house")) == Decimal("0.001")
    ModelPrice.objects.update(input_price=Decimal(5))  # sends no signal
    now = prices.time.monotonic()

    monkeypatch.setattr(prices.time, "monotonic", lambda: now + prices.MAX_AGE / 2)
    assert cost_of(unsaved("house")) == Decimal("0.001")
    monkeypatch.setattr(prices.time, "monotonic", lambda: now + prices.MAX_AGE + 1)
    assert cost_of(unsaved("house")) == Decimal("0.005")


def test_known_prices_remain_in_use_without_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    price("house", "1", "0")
    assert cost_of(unsaved("house")) == Decimal("0.001")

    def fail(alias: str) -> Any:
        raise OperationalError("the server is gone")

    monkeypatch.setattr(ModelPrice.objects, "using", fail)
    prices.table.reset()
    assert cost_of(unsaved("house")) == Decimal("0.001")


def test_without_the_library_only_rows_have_prices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    price("house", "1", "0")

    assert (cost_of(unsaved("gpt-5", "openai")), cost_of(unsaved("house"))) == (None, Decimal("0.001"))


def test_the_provider_of_a_server() -> None:
    urls = ["https://api.openai.com/v1/", "http://user:secret@GPU.internal:8000/v1"]
    assert [provider_of_url(url) for url in urls] == ["openai", "gpu.internal:8000"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pattern", ""),
        ("pattern", " gpt-5"),
        ("provider", "openai "),
        ("input_price", Decimal(-1)),
        ("pattern", "a\0b"),
    ],
)
def test_invalid_prices_are_refused(field: str, value: Any) -> None:
    values: dict[str, Any] = {"pattern": "house", "input_price": Decimal(1), "output_price": Decimal(1), field: value}
    with pytest.raises(ValidationError, match=field):
        ModelPrice(**values).full_clean()


def test_the_database_refuses_negative_and_repeated_prices() -> None:
    price("house")
    with pytest.raises(IntegrityError), transaction.atomic():
        ModelPrice.objects.create(pattern="other", input_price=Decimal(-1), output_price=Decimal(1))
    with pytest.raises(IntegrityError), transaction.atomic():
        ModelPrice.objects.create(
            pattern="house", valid_from=date(2026, 1, 1), input_price=Decimal(1), output_price=Decimal(1)
        )
