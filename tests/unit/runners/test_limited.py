"""How long a provider accepts no calls, by its error."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from openai import APIStatusError, BadRequestError, RateLimitError

from django_agentexec.limits.refusals import parse_reset
from django_agentexec.runners.openai.limited import MAX_WAIT, refused_for


def error(status: int = 429, code: str = "rate_limit_exceeded", **headers: str) -> APIStatusError:
    kind: Any = RateLimitError if status == 429 else BadRequestError
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    response = httpx2.Response(status, headers=names, request=httpx2.Request("POST", "http://test"))
    found: APIStatusError = kind("no", response=response, body={"code": code})
    return found


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "20"}, 20.0),
        ({"retry_after_ms": "1500", "retry_after": "20"}, 1.5),
        ({"retry_after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
        ({"x_ratelimit_reset_requests": "1s", "x_ratelimit_reset_tokens": "6m0s"}, 360.0),
        (
            {
                "x_ratelimit_reset_requests": "120ms",
                "x_ratelimit_remaining_requests": "0",
                "x_ratelimit_reset_tokens": "6m0s",
                "x_ratelimit_remaining_tokens": "5000",
            },
            0.12,
        ),
        ({"retry_after": "soon", "x_ratelimit_reset_tokens": "2.5"}, 2.5),
        ({"x_ratelimit_reset_tokens": "never"}, 4.0),
        ({}, 4.0),
    ],
)
def test_the_headers_name_the_time(headers: dict[str, str], seconds: float) -> None:
    assert refused_for(error(**headers), refusals=2) == pytest.approx(seconds)


def test_without_a_time_the_wait_grows() -> None:
    assert [refused_for(error(), number) for number in (0, 1, 2, 20)] == [1.0, 2.0, 4.0, MAX_WAIT]


def test_other_errors_are_no_refusals() -> None:
    assert refused_for(error(400), 0) is None
    assert refused_for(error(code="insufficient_quota"), 0) is None
    assert refused_for(ValueError("no"), 0) is None


@pytest.mark.parametrize("text", ["", None, "1x", "s", "1 s", "-1s", "1h junk"])
def test_text_that_is_no_duration(text: str | None) -> None:
    assert parse_reset(text) is None


def test_durations() -> None:
    assert parse_reset("1h2m3.5s") == pytest.approx(3_723.5)
    assert parse_reset("250ms") == pytest.approx(0.25)
