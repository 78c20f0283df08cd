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
        "|a|\n|-|\n" * (LENGTH // 8),
        "|" * LENGTH,
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


def test_tables() -> None:
    text = "Sums:\n| Item | **Sum** |\n|:---|---:|\n| <b> | 4 |\n| rest |\nThe end."

    assert markdown.render(text) == (
        "<p>Sums:</p>\n"
        '<div class="ae-scroll" tabindex="0"><table>'
        '<thead><tr><th scope="col">Item</th><th scope="col"><strong>Sum</strong></th></tr></thead>'
        "<tbody><tr><td>&lt;b&gt;</td><td>4</td></tr><tr><td>rest</td><td></td></tr></tbody></table></div>\n"
        "<p>The end.</p>"
    )


@pytest.mark.parametrize("text", ["| a | b |", "| a | b |\n|---|", "| a |\n| b |", "a | b\n---|---", "|\n|"])
def test_lines_with_bars_are_no_table_without_a_rule(text: str) -> None:
    assert "<table>" not in markdown.render(text)
