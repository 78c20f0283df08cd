"""How long to wait before an attempt is repeated."""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

from django_agentexec import Backoff, InvalidOption, ResultError, StaleAttempt, Task
from django_agentexec.backoff import MAX_RETRY_AFTER, retry_after
from django_agentexec.tasks.definition import MAX_DELAY

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


class Nothing(BaseModel):
    pass


def handler(agent_id: UUID, context: Nothing) -> None: ...


class ProviderError(Exception):
    """As those of openai, httpx and requests."""

    def __init__(self, headers: Any) -> None:
        super().__init__("slow down")
        self.response = SimpleNamespace(headers=headers)


def test_without_jitter_the_wait_doubles_up_to_its_maximum() -> None:
    backoff = Backoff(base=2, maximum=10, jitter=False)

    assert [backoff(retry, ValueError()) for retry in (1, 2, 3, 4, 1000)] == [2, 4, 8, 10, 10]


def test_base_and_maximum_may_be_timedeltas() -> None:
    backoff = Backoff(base=timedelta(seconds=2), maximum=timedelta(minutes=0.1), jitter=False)

    assert [backoff(retry, ValueError()) for retry in (1, 2, 3)] == [2, 4, 6]


@pytest.mark.parametrize("options", [{"base": "2"}, {"base": -1}, {"maximum": timedelta(-1)}, {"factor": None}])
def test_impossible_options_are_refused(options: Any) -> None:
    ((name, value),) = options.items()

    with pytest.raises(InvalidOption, match=re.escape(f"Backoff({name}={value!r})")):
        Backoff(**options)


def test_with_jitter_the_wait_is_anywhere_below_the_bound() -> None:
    waits = [Backoff(base=4)(2, ValueError()) for _ in range(200)]

    assert all(0 <= wait <= 8 for wait in waits)
    assert max(waits) - min(waits) > 4


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "20"}, 20.0),
        ({"Retry-After": "20"}, 20.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": " 7 "}, 7.0),
        ({"retry-after": 7}, 7.0),
        ({"retry-after-ms": "250"}, 0.25),
        ({"Retry-After-Ms": "250", "retry-after": "20"}, 0.25),
        ({"retry-after": "Sat, 21 Nov 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Sat, 21 Nov 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": "1e9"}, MAX_RETRY_AFTER),
        ({"retry-after": "inf"}, MAX_RETRY_AFTER),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": None}, None),
        ({"retry-after-ms": []}, None),
        ({"retry-after": "Sat, 21 Nov 2026 12:00:30 -0000"}, None),
        ({}, None),
        (None, None),
        ([("retry-after", "1")], None),
    ],
)
def test_a_providers_wish(headers: Any, seconds: float | None) -> None:
    assert retry_after(ProviderError(headers), NOW) == seconds


def test_an_error_without_a_response_asks_for_nothing() -> None:
    assert retry_after(ValueError()) is None


def test_the_longer_of_backoff_and_wish_counts() -> None:
    definition = Task("t", handler, backoff=lambda retry, error: 10.0)

    assert definition.retry_delay(ProviderError({"retry-after": "30"}), 1) == 30.0
    assert definition.retry_delay(ProviderError({"retry-after": "3"}), 1) == 10.0


@pytest.mark.parametrize("error", [ResultError("no"), StaleAttempt("no")])
def test_what_a_repetition_cannot_heal_is_not_repeated(error: Exception) -> None:
    assert Task("t", handler).retry_delay(error, 1) is None


@pytest.mark.parametrize("said", [float("nan"), -5.0])
def test_a_backoff_below_zero_is_zero(said: float) -> None:
    assert Task("t", handler, backoff=lambda retry, error: said).retry_delay(ValueError(), 1) == 0.0


def test_a_backoff_of_years_is_cut() -> None:
    definition = Task("t", handler, backoff=lambda retry, error: float("inf"))

    assert definition.retry_delay(ValueError(), 1) == MAX_DELAY


@pytest.mark.parametrize("said", [None, "soon", ZeroDivisionError("in the backoff")])
def test_a_broken_backoff_is_logged_and_the_default_is_used(said: Any, caplog: pytest.LogCaptureFixture) -> None:
    def broken(retry: int, error: BaseException) -> float:
        if isinstance(said, Exception):
            raise said
        return said  # type: ignore[no-any-return]  # what is wrong with it

    delay = Task("t", handler, backoff=broken).retry_delay(ValueError(), 1)

    assert delay is not None
    assert 0 <= delay <= 1
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
