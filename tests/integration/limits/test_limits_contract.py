"""The conformance suite of stores of limits: every store passes every test."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from django_agentexec.conf import conf
from django_agentexec.limits import Bucket, Limit, Request, Reservation, Wait
from django_agentexec.limits.base import POLL_GRACE, SLOT_WAIT, SUSPENDED_GRACE
from tests.support.limit_stores import Clocked, MemoryStore, RedisStore, stopped_clock

_numbers = count()


@pytest.fixture(params=[MemoryStore, RedisStore])
def clocked(request: pytest.FixtureRequest) -> Iterator[Clocked]:
    with stopped_clock():
        yield request.param()


def bucket(name: str = "gpt-5", **limit: Any) -> Bucket:
    return Bucket(name, Limit(name, margin=0.0, **limit))


def call(*buckets: Bucket, tokens: int = 0, ticket: str = "", tenant: str = "") -> Request:
    return Request(buckets, tokens, ticket or f"ticket-{next(_numbers)}", tenant)


def granted(clocked: Clocked, request: Request) -> Reservation:
    reply = clocked.store.reserve(request)
    assert isinstance(reply, Reservation)
    return reply


def waits(clocked: Clocked, request: Request, patience: float | None = None) -> float:
    reply = clocked.store.reserve(request, patience)
    assert isinstance(reply, Wait)
    return reply.seconds


def test_no_window_holds_more_requests_than_the_limit(clocked: Clocked) -> None:
    limited = bucket(rpm=3)
    for _ in range(3):
        granted(clocked, call(limited))
        clocked.forward(10)

    assert waits(clocked, call(limited)) == pytest.approx(30)
    clocked.forward(29.999)
    late = call(limited, ticket="late")
    assert isinstance(clocked.store.reserve(late), Wait)
    clocked.forward(0.001)
    granted(clocked, call(limited, ticket="late"))
    assert waits(clocked, call(limited)) == pytest.approx(10)


def test_the_margin_makes_the_window_longer(clocked: Clocked) -> None:
    limited = Bucket("gpt-5", Limit("gpt-5", rpm=1, window=2.0, margin=0.5))
    granted(clocked, call(limited))

    assert waits(clocked, call(limited)) == pytest.approx(2.5)


def test_no_window_holds_more_tokens_than_the_limit(clocked: Clocked) -> None:
    limited = bucket(tpm=100)
    granted(clocked, call(limited, tokens=40))
    clocked.forward(20)
    granted(clocked, call(limited, tokens=40))

    assert waits(clocked, call(limited, tokens=30, ticket="medium")) == pytest.approx(40)
    clocked.store.withdraw(call(limited, ticket="medium"))
    assert waits(clocked, call(limited, tokens=90, ticket="large")) == pytest.approx(60)
    clocked.forward(60)
    granted(clocked, call(limited, tokens=90, ticket="large"))


def test_tokens_that_were_not_used_are_free_again(clocked: Clocked) -> None:
    limited = bucket(tpm=100)
    first = granted(clocked, call(limited, tokens=100))
    assert waits(clocked, call(limited, tokens=60, ticket="next")) == pytest.approx(60)

    clocked.store.settle(first, 40)

    granted(clocked, call(limited, tokens=60, ticket="next"))


def test_an_estimate_that_was_too_low_is_made_up_for(clocked: Clocked) -> None:
    limited = bucket(tpm=100)
    first = granted(clocked, call(limited, tokens=50))
    clocked.forward(30)
    clocked.store.settle(first, 250)

    assert clocked.store.usage(limited).tokens == 250
    assert waits(clocked, call(limited, tokens=1, ticket="next")) == pytest.approx(60)
    clocked.forward(59)
    assert isinstance(clocked.store.reserve(call(limited, tokens=1, ticket="next")), Wait)
    clocked.forward(1)
    granted(clocked, call(limited, tokens=1, ticket="next"))


def test_an_excess_counts_although_the_grant_has_left_the_window(clocked: Clocked) -> None:
    limited = bucket(tpm=100)
    first = granted(clocked, call(limited, tokens=50))
    clocked.forward(90)
    clocked.store.settle(first, 120)

    assert clocked.store.usage(limited).tokens == 70
    assert waits(clocked, call(limited, tokens=31)) == pytest.approx(60)


def test_unknown_tokens_keep_the_estimate_and_a_rejected_request_uses_none(clocked: Clocked) -> None:
    limited = bucket(rpm=10, tpm=100)
    clocked.store.settle(granted(clocked, call(limited, tokens=30)), None)
    clocked.store.settle(granted(clocked, call(limited, tokens=30)), 0)

    usage = clocked.store.usage(limited)

    assert (usage.requests, usage.tokens) == (2, 30)


def test_a_call_larger_than_the_limit_takes_all_of_it(clocked: Clocked) -> None:
    limited = bucket(tpm=100)
    granted(clocked, call(limited, tokens=1))
    assert waits(clocked, call(limited, tokens=500, ticket="huge")) == pytest.approx(60)
    clocked.forward(60)

    huge = granted(clocked, call(limited, tokens=500, ticket="huge"))

    assert waits(clocked, call(limited, tokens=1)) == pytest.approx(60)
    clocked.store.settle(huge, 30)
    assert clocked.store.usage(limited).tokens == 30


def test_a_grant_that_was_not_used_is_given_back(clocked: Clocked) -> None:
    limited = bucket(rpm=1, tpm=100, concurrency=1)
    clocked.store.cancel(granted(clocked, call(limited, tokens=100)))

    usage = clocked.store.usage(limited)
    assert (usage.requests, usage.tokens, usage.in_progress) == (0, 0, 0)
    granted(clocked, call(limited, tokens=100))


def test_calls_in_progress_hold_a_slot_until_they_end(clocked: Clocked) -> None:
    limited = bucket(concurrency=2)
    first = granted(clocked, call(limited))
    granted(clocked, call(limited))
    assert waits(clocked, call(limited, ticket="third")) > 0

    clocked.store.settle(first, None)

    granted(clocked, call(limited, ticket="third"))
    assert clocked.store.usage(limited).in_progress == 2


def test_the_wait_for_a_slot_follows_the_duration_of_calls(clocked: Clocked) -> None:
    limited = bucket(concurrency=2)
    first, second = granted(clocked, call(limited)), granted(clocked, call(limited))
    assert waits(clocked, call(limited, ticket="a"), patience=0) == pytest.approx(SLOT_WAIT / 2)
    assert waits(clocked, call(limited, ticket="b"), patience=0) == pytest.approx(SLOT_WAIT)

    clocked.store.settle(replace(first, granted_at=time.monotonic() - 40), None)
    granted(clocked, call(limited, ticket="a"))

    assert waits(clocked, call(limited, ticket="b"), patience=0) == pytest.approx(20, rel=0.1)
    clocked.store.settle(replace(second, granted_at=time.monotonic() - 10), None)
    granted(clocked, call(limited, ticket="b"))
    assert waits(clocked, call(limited, ticket="c"), patience=0) == pytest.approx(18.5, rel=0.1)


def test_the_slot_of_a_dead_process_is_free_after_its_lease(clocked: Clocked) -> None:
    limited = bucket(concurrency=2)
    granted(clocked, call(limited))
    alive = granted(clocked, call(limited))
    clocked.forward(conf.LEASE / 2)
    clocked.store.extend([alive])
    clocked.forward(conf.LEASE / 2)

    granted(clocked, call(limited))
    assert waits(clocked, call(limited)) > 0


def test_a_call_counts_in_all_of_its_buckets_or_in_none(clocked: Clocked) -> None:
    shared, own = bucket("all", rpm=1), bucket("own", rpm=5)
    granted(clocked, call(own, shared))

    assert waits(clocked, call(own, shared)) == pytest.approx(60)
    assert clocked.store.usage(own).requests == 1
    granted(clocked, call(own))


def test_a_call_that_waits_for_its_own_limit_holds_back_no_others(clocked: Clocked) -> None:
    shared, small, other = bucket("all", rpm=2), bucket("small", rpm=1), bucket("other", rpm=5)
    granted(clocked, call(small, shared))
    for _ in range(3):
        assert isinstance(clocked.store.reserve(call(small, shared)), Wait)

    granted(clocked, call(other, shared))


def test_a_closed_bucket_grants_nothing_until_it_opens(clocked: Clocked) -> None:
    limited, other = bucket(rpm=10), bucket("other", rpm=10)
    clocked.store.close_buckets([limited], 20)
    clocked.store.close_buckets([limited], 5)

    assert waits(clocked, call(limited, ticket="next")) == pytest.approx(20)
    assert clocked.store.usage(limited).closed == pytest.approx(20)
    granted(clocked, call(other))
    clocked.forward(20)
    granted(clocked, call(limited, ticket="next"))
    assert clocked.store.usage(limited).closed == 0


def test_a_bucket_is_closed_for_the_endpoint_that_has_closed_it(clocked: Clocked) -> None:
    limited = bucket(rpm=10, concurrency=1)
    refusing = [replace(call(limited, tenant=name), endpoint="evil.example") for name in "abc"]
    clocked.store.close_buckets([limited], 20, "evil.example")

    assert [waits(clocked, each) for each in refusing] == [pytest.approx(20)] * 3
    usage = clocked.store.usage(limited)
    assert (usage.closed, usage.waiting) == (pytest.approx(20), 3)
    done = granted(clocked, replace(call(limited), endpoint="api.openai.com"))  # those that wait hold back no others
    clocked.store.settle(done, 0)

    clocked.store.withdraw(refusing[2])
    clocked.forward(20)
    clocked.store.settle(granted(clocked, refusing[0]), 0)
    assert clocked.store.usage(limited).waiting == 0


def test_a_call_that_waits_loses_its_place_while_its_endpoint_is_closed(clocked: Clocked) -> None:
    limited = bucket(rpm=1)
    granted(clocked, call(limited))
    first, second = replace(call(limited), endpoint="evil.example"), call(limited)
    assert [waits(clocked, each, patience=0) for each in (first, second)] == [pytest.approx(60)] * 2
    clocked.store.close_buckets([limited], 600, "evil.example")
    assert waits(clocked, first, patience=0) == pytest.approx(600)

    clocked.forward(60)

    granted(clocked, second)


def test_waiting_calls_are_served_in_their_order(clocked: Clocked) -> None:
    limited = bucket(rpm=1)
    granted(clocked, call(limited))
    first, second = call(limited), call(limited)
    assert waits(clocked, first) == pytest.approx(60)
    assert waits(clocked, second) == pytest.approx(60)
    clocked.forward(5)
    assert waits(clocked, first, patience=0) == pytest.approx(55)
    assert waits(clocked, second, patience=0) == pytest.approx(60)

    clocked.forward(55)

    assert isinstance(clocked.store.reserve(second, 0), Wait)
    granted(clocked, first)


def test_a_call_passes_those_ahead_if_there_is_room_for_all(clocked: Clocked) -> None:
    limited = bucket(rpm=2)
    for _ in range(2):
        granted(clocked, call(limited))
    first, second = call(limited), call(limited)
    assert waits(clocked, first, patience=0)
    assert waits(clocked, second, patience=0)
    clocked.forward(60)

    granted(clocked, second)
    assert isinstance(clocked.store.reserve(call(limited)), Wait)
    granted(clocked, first)


def test_tenants_take_turns(clocked: Clocked) -> None:
    limited = bucket(rpm=1)
    granted(clocked, call(limited))
    many = [call(limited, tenant="a") for _ in range(5)]
    few = [call(limited, tenant="b") for _ in range(2)]
    late = call(limited, tenant="c")
    waiting = [*many, *few, late]
    for request in waiting:
        assert isinstance(clocked.store.reserve(request, 0), Wait)

    order = []
    while waiting:
        clocked.forward(60)
        served = [each for each in waiting if isinstance(clocked.store.reserve(each, 0), Reservation)]
        assert len(served) == 1
        waiting.remove(served[0])
        order.append(served[0].tenant)

    assert order == ["a", "b", "c", "a", "b", "a", "a", "a"]


def test_a_ticket_expires_if_its_caller_does_not_ask_again(clocked: Clocked) -> None:
    limited = bucket(rpm=1)
    granted(clocked, call(limited))
    clocked.forward(60 - POLL_GRACE)
    assert isinstance(clocked.store.reserve(call(limited)), Wait)
    clocked.forward(POLL_GRACE)

    granted(clocked, call(limited))


def test_a_suspended_activity_keeps_its_place(clocked: Clocked) -> None:
    limited = bucket(rpm=1)
    granted(clocked, call(limited))
    suspended = call(limited)
    assert waits(clocked, suspended, patience=5) == pytest.approx(60)
    clocked.forward(60 + SUSPENDED_GRACE / 2)

    assert isinstance(clocked.store.reserve(call(limited)), Wait)
    granted(clocked, suspended)


def test_a_ticket_of_a_call_that_no_longer_waits_is_deleted(clocked: Clocked) -> None:
    limited = bucket(rpm=1)
    granted(clocked, call(limited))
    canceled = call(limited)
    assert waits(clocked, canceled, patience=0)
    assert clocked.store.usage(limited).waiting == 1

    clocked.store.withdraw(canceled)

    assert clocked.store.usage(limited).waiting == 0
    clocked.forward(60)
    granted(clocked, call(limited))


def test_the_wait_grows_with_the_calls_ahead(clocked: Clocked) -> None:
    limited = bucket(rpm=2, tpm=100)
    for _ in range(2):
        granted(clocked, call(limited, tokens=10))

    found = [waits(clocked, call(limited, tokens=10), patience=0) for _ in range(5)]

    assert found == pytest.approx([60, 60, 60, 60, 120])


def test_a_large_call_ahead_is_not_starved_by_small_ones(clocked: Clocked) -> None:
    limited = bucket(tpm=100)
    granted(clocked, call(limited, tokens=90))
    assert waits(clocked, call(limited, tokens=50), patience=0) == pytest.approx(60)

    assert waits(clocked, call(limited, tokens=10), patience=0) == pytest.approx(60)


def test_a_usage_of_many_old_grants_is_forgotten_at_once(clocked: Clocked) -> None:
    limited = bucket(rpm=5_000, tpm=5_000)
    for _ in range(2_500):
        clocked.store.reserve(call(limited, tokens=1))
    assert clocked.store.usage(limited).tokens == 2_500
    clocked.forward(60)

    usage = clocked.store.usage(limited)

    assert (usage.requests, usage.tokens) == (0, 0)


def test_the_wait_for_many_tokens_is_about_right(clocked: Clocked) -> None:
    limited = bucket(tpm=2_000)
    for number in range(2_000):
        granted(clocked, call(limited, tokens=1))
        if number % 100 == 99:
            clocked.forward(1)

    found = [waits(clocked, call(limited, tokens=tokens, ticket="large")) for tokens in (100, 1_001, 2_000)]

    assert found == pytest.approx([40, 50, 59], abs=1)
