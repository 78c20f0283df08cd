"""Numbers and ids in external text: ASCII digits within 63 bits, and nothing else that Python would accept."""

from __future__ import annotations

import argparse
from typing import Any
from uuid import UUID

import pytest
from django.core.management import CommandError

from django_agentexec import ActivityNotFound
from django_agentexec.backoff import retry_after
from django_agentexec.ids import id_range
from django_agentexec.live.channel_layer import ChangeNotice
from django_agentexec.live.websocket.commands import Invalid, Unreadable, log_id, parse
from django_agentexec.management.commands.runagentworkers import Command
from django_agentexec.parsing import MAX_INT64, parse_decimal, parse_digits, parse_id
from django_agentexec.queues.live import is_stream_id
from django_agentexec.terminal.arguments import duration, positive, seconds
from django_agentexec.validation import validate_id

ARABIC = "\N{ARABIC-INDIC DIGIT ONE}"
FULLWIDTH = "\N{FULLWIDTH DIGIT ONE}"
SUPERSCRIPT = "\N{SUPERSCRIPT TWO}"
NOT_DIGITS = [
    ARABIC,
    FULLWIDTH,
    SUPERSCRIPT,
    "1_0",
    "+1",
    "-1",
    " 1",
    "1 ",
    "1\n",
    "",
    "1.0",
    "0x1",
    "9" * 20,
    "9" * 5_000,
]
ID = "0190aa00-0000-7000-8000-000000000001"
NOT_IDS = [
    *(ID.replace("1", digit) for digit in (ARABIC, "_", "+", " ", "g")),
    f"{{{ID}}}",
    f"urn:uuid:{ID}",
    ID + "\n",
    ID.replace("-", "") + "0",
    "0190aa0-00000-7000-8000-000000000001",
    "",
]


@pytest.mark.parametrize("text", NOT_DIGITS, ids=lambda text: ascii(text)[:20])
def test_what_is_not_a_number_in_plain_digits_is_refused(text: str) -> None:
    assert parse_digits(text) is None
    assert not is_stream_id(f"1-{text}")
    assert not is_stream_id(f"{text}-1")
    with pytest.raises(Invalid):
        log_id(text)
    with pytest.raises(argparse.ArgumentTypeError):
        positive(text)
    with pytest.raises(CommandError, match="--workers"):
        Command().create_parser("manage.py", "runagentworkers").parse_args([f"--workers={text}"])


def test_a_number_has_63_bits() -> None:
    assert parse_digits("0") == 0
    assert parse_digits(str(MAX_INT64)) == log_id(MAX_INT64) == MAX_INT64
    assert parse_digits(str(MAX_INT64 + 1)) is None
    assert parse_digits("8", maximum=7) is None
    assert is_stream_id(f"{MAX_INT64}-{MAX_INT64}")
    assert not is_stream_id(f"{MAX_INT64 + 1}-0")
    assert not is_stream_id(f"0-{MAX_INT64 + 1}")


@pytest.mark.parametrize("text", ["1", "1-", "-1", "1-2-3", "1-2 ", "(1-2", "$", "+", "", None, 7])
def test_what_is_not_a_position_in_a_stream(text: object) -> None:
    assert not is_stream_id(text)


@pytest.mark.parametrize(
    ("text", "number"), [("1", 1.0), ("1.5", 1.5), ("-2", -2.0), (".5", 0.5), ("1e3", 1000.0), ("1e999", float("inf"))]
)
def test_decimal_numbers(text: str, number: float) -> None:
    assert parse_decimal(text) == number


@pytest.mark.parametrize("text", [ARABIC, "1_0", "1_0.5", "+1", " 1", "nan", "inf", "Infinity", "1e", "1.2.3", ""])
def test_what_is_not_a_decimal_number(text: str) -> None:
    assert parse_decimal(text) is None
    with pytest.raises(argparse.ArgumentTypeError):
        seconds(text)


@pytest.mark.parametrize(
    "text", [f"{ARABIC}s", f"1{ARABIC}s", "1_0s", "9" * 5_000 + "s"], ids=lambda text: ascii(text)[:20]
)
def test_what_is_not_a_duration(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        duration(text)


@pytest.mark.parametrize("text", [ID, ID.upper(), ID.replace("-", "")])
def test_an_id_has_two_forms(text: str) -> None:
    assert parse_id(text) == validate_id(text) == UUID(ID)


@pytest.mark.parametrize("text", NOT_IDS, ids=ascii)
def test_what_is_not_an_id(text: str) -> None:
    with pytest.raises(ValueError, match="is not a UUID"):
        parse_id(text)
    with pytest.raises(ActivityNotFound):
        validate_id(text)
    with pytest.raises(Invalid):
        parse(f'{{"cancel": {text!r}}}'.replace("'", '"').replace("\\n", "\\n"))


def test_the_beginning_of_an_id_is_hexadecimal() -> None:
    with pytest.raises(ValueError, match="is not a UUID"):
        id_range("0190aa" + ARABIC)


@pytest.mark.parametrize("value", [ARABIC, "1_0", f"{ARABIC}.5", "2\N{NO-BREAK SPACE}"])
def test_a_providers_wish_in_other_digits_is_none(value: str) -> None:
    class SlowDown(Exception):
        response: Any = type("Response", (), {"headers": {"retry-after": value}})

    assert retry_after(SlowDown()) is None
    SlowDown.response.headers = {"retry-after-ms": value}
    assert retry_after(SlowDown()) is None


@pytest.mark.parametrize(
    "text",
    [
        '{"cancel": "x", "request": NaN}',
        '{"cancel": "x", "request": -Infinity}',
        '{"type": "pong", "n": ' + "9" * 5_000 + "}",
    ],
    ids=lambda text: text[:40],
)
def test_what_is_not_json_is_no_message(text: str) -> None:
    with pytest.raises(Unreadable):
        parse(text)


@pytest.mark.parametrize("number", ["1e999", "9" * 300])
def test_a_request_that_cannot_be_echoed_is_refused(number: str) -> None:
    with pytest.raises(Invalid, match="`request`"):
        parse(f'{{"cancel": "{ID}", "request": {number}}}')


@pytest.mark.parametrize("log", [-1, 2**63, 1.5, True, "1", None])
def test_a_hint_with_an_impossible_position_is_none_of_ours(log: Any) -> None:
    with pytest.raises(ValueError, match="log line"):
        ChangeNotice.from_message({"topic": "t", "changed": [[ID.replace("-", ""), log]], "streamed": False})
