"""What headers and errors of providers report about their limits, in the form of any client."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from django_agentexec.limits import note_headers
from django_agentexec.limits.headers import observe
from django_agentexec.limits.refusals import refused_for, status_of, used_up_for


def headers(**values: str) -> dict[str, str]:
    return {f"x-ratelimit-{name.replace('_', '-')}": value for name, value in values.items()}


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (headers(remaining_requests="0", reset_requests="60s", limit_requests="120"), 0.5),
        (headers(remaining_requests="0", reset_requests="60s"), 60),
        (headers(remaining_requests="1", reset_requests="60s", limit_requests="120"), None),
        (headers(remaining_requests="0"), None),
        (headers(remaining_requests="0", reset_requests="soon"), None),
        (headers(remaining_tokens="0", reset_tokens="1m0s", limit_tokens="6000"), 10),
        (headers(remaining_tokens="0", reset_tokens="1m0s", limit_tokens="10"), 60),
        (headers(remaining_tokens="0", reset_tokens="1m0s", limit_tokens="0"), 60),
        (headers(remaining_tokens="0", reset_tokens="1m0s", limit_tokens="9" * 5_000), 60),
        (headers(remaining_tokens="0", reset_tokens="1m0s", limit_tokens="\u0661\u0662"), 60),
        (
            headers(remaining_requests="0", reset_requests="60s", limit_requests="60",
                    remaining_tokens="0", reset_tokens="60s", limit_tokens="2000"),
            30,
        ),
        ({}, None),
    ],
)  # fmt: skip
def test_seconds_until_another_call_fits(given: dict[str, str], seconds: float | None) -> None:
    assert used_up_for(given, 1_000) == (None if seconds is None else pytest.approx(seconds))


class HttpError(Exception):
    def __init__(self, status_code: int, body: Any = None, headers: dict[str, str] | None = None) -> None:
        self.status_code, self.body = status_code, body
        if headers is not None:
            self.response = SimpleNamespace(headers=headers)


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (HttpError(429, headers={"retry-after": "7"}), 7),
        (HttpError(429), 1),
        (HttpError(429, headers={"retry-after": 7}), 1),  # type: ignore[dict-item]  # of a client of one's own
        (HttpError(429, {"error": {"code": ["insufficient_quota"]}}), 1),
        (HttpError(429, {"code": {}}), 1),
        (HttpError(429, {"error": {"code": "insufficient_quota"}}), None),
        (HttpError(429, {"code": "insufficient_quota"}), None),
        (HttpError(500), None),
        (caused(ValueError("wrapped"), HttpError(429, headers={"retry-after": "7"})), 7),
        (caused(HttpError(429), HttpError(429, headers={"retry-after": "7"})), 7),
        (ValueError("429"), None),
    ],
)
def test_seconds_of_a_refusal(error: Exception, seconds: float | None) -> None:
    assert refused_for(error) == seconds


def test_the_status_of_errors() -> None:
    assert status_of(caused(ValueError(), HttpError(503))) == 503
    assert status_of(ValueError()) is None


class HttpClient:
    def __init__(self) -> None:
        self.event_hooks: dict[str, list[Any]] = {"request": [print], "response": [print]}

    async def aclose(self) -> None:
        """As an async client."""


def test_a_client_is_observed_once_and_keeps_its_hooks() -> None:
    http = HttpClient()
    client = SimpleNamespace(_client=http)
    observe(client)
    observe(client)

    assert http.event_hooks == {"request": [print], "response": [print, note_headers]}


@pytest.mark.parametrize("client", [None, object(), SimpleNamespace(_client=None), SimpleNamespace(_client=object())])
def test_other_clients_are_left_as_they_are(client: Any) -> None:
    observe(client)
