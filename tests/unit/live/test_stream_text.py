"""Streamed text for one client: what it has, where something is missing, what replaces it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any
from uuid import UUID

import pytest

from django_agentexec.live.messages import MAX_DELTA
from django_agentexec.live.text_feed import MAX_WAITING, TextFeed
from django_agentexec.queues import Chunk

ID = UUID(int=7)
FENCE = 1_790_000_000_000_000

numbers = count(1)


def piece(
    text: str, offset: int = -1, *, fence: int = FENCE, number: int = 0, writer: str = "w", **options: Any
) -> Chunk:
    return Chunk(ID, text, 1, f"1-{number or next(numbers)}", fence=fence, offset=offset, writer=writer, **options)


def pieces(*texts: str, fence: int = FENCE, writer: str = "w", start: int = 0) -> Iterator[Chunk]:
    for text in texts:
        yield piece(text, start, fence=fence, writer=writer)
        start += len(text)


def kinds(feed: TextFeed) -> list[tuple[str, Any]]:
    """Return what is sent, in short."""
    messages = []
    while feed.is_waiting:
        messages += feed.take()
    return [(each["type"], each.get("text", each.get("missing"))) for each in messages]


@pytest.fixture
def feed() -> TextFeed:
    return TextFeed(ID, None)


def test_whole_text_is_sent_as_it_comes(feed: TextFeed) -> None:
    assert feed.accept(list(pieces("one ", "two ", "three")))

    (message,) = feed.take()

    assert message["text"] == "one two three"
    assert (message["fence"], message["attempt"]) == (FENCE, 1)
    assert "label" not in message
    assert not feed.has_gap


def test_a_late_client_is_notified_of_what_was_trimmed(feed: TextFeed) -> None:
    feed.accept(list(pieces("three", start=8)))

    assert kinds(feed) == [("gap", 8), ("delta", "three")]
    assert feed.has_gap


def test_a_jump_in_the_middle_is_a_gap_of_so_many_characters(feed: TextFeed) -> None:
    feed.accept([piece("one", 0), piece("four", 20), piece("five", 24)])

    assert kinds(feed) == [("delta", "one"), ("gap", 17), ("delta", "fourfive")]


def test_text_that_its_writer_lost_last_is_a_gap_too(feed: TextFeed) -> None:
    feed.accept([piece("one", 0), piece("", 50)])

    assert kinds(feed) == [("delta", "one"), ("gap", 47)]


def test_the_stored_text_replaces_what_a_client_with_a_gap_has(feed: TextFeed) -> None:
    feed.accept(list(pieces("three", start=8)))
    feed.replace("one two three")

    (message,) = feed.take()

    assert (message["type"], message["text"], message["offset"], message["total"]) == ("text", "one two three", 0, 13)
    assert not feed.has_gap


def test_a_long_stored_text_is_sent_in_parts_a_few_at_a_time(feed: TextFeed) -> None:
    whole = "".join(map(str, range(200_000)))
    feed.replace(whole)

    first = feed.take()
    assert feed.is_waiting
    messages = list(first)
    while feed.is_waiting:
        messages += feed.take()

    assert sum(len(each["text"]) for each in first) == MAX_WAITING
    assert max(len(each["text"]) for each in messages) == MAX_DELTA
    assert "".join(each["text"] for each in messages) == whole
    offset = 0
    for each in messages:
        assert (each["offset"], each["total"]) == (offset, len(whole))
        offset += len(each["text"])


def test_a_new_fence_begins_the_text_again(feed: TextFeed) -> None:
    feed.accept(list(pieces("one ", "two ")))
    feed.take()
    feed.accept([*pieces("one ", "two ", "three", fence=FENCE + 1, writer="x")])

    rewind, message = feed.take()

    assert (rewind["type"], rewind["position"], rewind["fence"]) == ("rewind", 0, FENCE + 1)
    assert (message["text"], message["fence"]) == ("one two three", FENCE + 1)


def test_the_first_text_of_a_client_withdraws_nothing(feed: TextFeed) -> None:
    feed.accept([*pieces("one", fence=FENCE + 1, writer="x")])

    assert kinds(feed) == [("delta", "one")]


def test_a_worker_that_has_lost_the_activity_is_not_shown(feed: TextFeed) -> None:
    feed.accept(
        [*pieces("new ", fence=FENCE + 1, writer="x"), *pieces("old "), piece("text", 4, fence=FENCE + 1, writer="x")]
    )

    assert kinds(feed) == [("delta", "new text")]


def test_a_new_fence_closes_the_gap_of_the_old_one(feed: TextFeed) -> None:
    feed.accept([*pieces("lost", start=9), *pieces("whole", fence=FENCE + 1, writer="x")])

    assert kinds(feed) == [("delta", "whole")]  # the client shows no text that would be withdrawn
    assert not feed.has_gap


def test_a_retraction_takes_back_what_waits_and_what_was_sent(feed: TextFeed) -> None:
    feed.accept(list(pieces("You should ")))
    feed.take()
    feed.accept([piece("sue.", 11), piece("", 15, retracts=True), piece("I cannot say.", 15)])

    first, second = feed.take()

    assert (first["type"], first["fence"]) == ("retract", FENCE)
    assert first["stream_id"] < second["stream_id"]
    assert (second["type"], second["text"]) == ("delta", "I cannot say.")
    assert not feed.has_gap


def test_a_client_that_comes_after_a_retraction_lacks_nothing(feed: TextFeed) -> None:
    feed.accept([piece("", 15, retracts=True), piece("I cannot say.", 15)])

    assert kinds(feed) == [("retract", None), ("delta", "I cannot say.")]
    assert not feed.has_gap


def test_a_client_that_comes_back_continues_after_its_last_piece() -> None:
    last, *rest = pieces("one ", "two ", "three")
    feed = TextFeed(ID, last.stream_id)
    assert feed.must_resume

    feed.resume(last)
    feed.accept([last, *rest])

    assert kinds(feed) == [("delta", "two three")]
    assert not feed.has_gap


def test_a_client_that_comes_back_sees_what_was_trimmed_meanwhile() -> None:
    last = piece("one ", 0)
    feed = TextFeed(ID, last.stream_id)

    feed.resume(last)
    feed.accept([piece("three", 8)])

    assert kinds(feed) == [("gap", 4), ("delta", "three")]


def test_a_client_whose_last_piece_is_gone_has_a_gap_of_unknown_size() -> None:
    feed = TextFeed(ID, piece("one ").stream_id)

    feed.resume(None)
    feed.accept([piece("three", 8)])

    assert kinds(feed) == [("gap", None), ("delta", "three")]
    assert feed.has_gap


def test_a_slow_client_takes_a_limited_amount_and_the_rest_later(feed: TextFeed) -> None:
    many = list(pieces(*["x" * 8_000] * 40))

    assert not feed.accept(many)
    taken = feed.take()
    assert feed.accept(many)
    taken += feed.take()

    assert [each["type"] for each in taken] == ["delta"] * len(taken)
    assert sum(len(each["text"]) for each in taken) == 320_000
    assert max(len(each["text"]) for each in taken) <= MAX_DELTA


def test_writers_outside_of_a_worker_are_counted_one_by_one(feed: TextFeed) -> None:
    feed.accept(
        [piece("a", 0, fence=0, writer="p"), piece("b", 0, fence=0, writer="q"), piece("c", 1, fence=0, writer="p")]
    )

    assert kinds(feed) == [("delta", "abc")]
    assert not feed.has_gap


def test_pieces_of_the_release_before_the_fence_are_passed_on(feed: TextFeed) -> None:
    feed.accept([piece("one ", fence=0, writer=""), piece("two", fence=0, writer="")])

    assert kinds(feed) == [("delta", "one two")]
    assert not feed.has_gap


def test_text_of_several_agents_is_labeled_and_kept_apart(feed: TextFeed) -> None:
    feed.accept([piece("A1 ", 0, label="A"), piece("A2", 3, label="A"), piece("B1", 5, label="B")])

    assert [(each["label"], each["text"]) for each in feed.take()] == [("A", "A1 A2"), ("B", "B1")]


def test_a_rewind_follows_the_text_before_it_and_precedes_the_text_after_it(feed: TextFeed) -> None:
    feed.accept([piece("one ", 0), piece("tw", 4), piece("", 6, rewinds_to=4), piece("two", 7)])

    messages = feed.take()

    assert [(each["type"], each.get("text", each.get("position"))) for each in messages] == [
        ("delta", "one tw"),
        ("rewind", 4),
        ("delta", "two"),
    ]
    assert not feed.has_gap


def test_a_lost_rewind_is_a_gap(feed: TextFeed) -> None:
    feed.accept([piece("one tw", 0), piece("two", 7)])

    assert kinds(feed) == [("delta", "one tw"), ("gap", 1), ("delta", "two")]
