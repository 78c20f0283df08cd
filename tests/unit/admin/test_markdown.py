"""Markdown of results: what a model writes takes a time that grows with its length, not with the square of it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from django_agentexec.admin import markdown

LENGTH = 200_000  # characters: a moment, or many minutes if each is compared with all others


@contextmanager
def processor_time(seconds: float) -> Iterator[None]:
    """Raise `TimeoutError` after this processor time of the process, which a busy machine does not shorten."""

    def stop(*_: object) -> None:
        raise TimeoutError

    former = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, former)


@pytest.mark.parametrize(
    "text",
    [
        "# a" + "#" * LENGTH + "b",
        "# a" + " " * LENGTH + "b",
        "#" + " " * LENGTH,
        "**a " * (LENGTH // 4),
        "*a " * (LENGTH // 3),
        "[" * LENGTH,
        "[a](https://" * (LENGTH // 12),
        "`a" * (LENGTH // 2),
        "```\n" * (LENGTH // 4),
    ],
    ids=lambda text: text[:12],
)
def test_no_text_takes_long(text: str) -> None:
    with processor_time(30):
        assert markdown.render(text)


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("## a # b ##", "<h4>a # b</h4>"),
        ("# **a**", "<h3><strong>a</strong></h3>"),
        ("**a** and **b*c**", "<p><strong>a</strong> and <strong>b*c</strong></p>"),
        ("**a **b**", "<p>**a <strong>b</strong></p>"),
    ],
)
def test_headings_and_strong_text(text: str, html: str) -> None:
    assert markdown.render(text) == html
