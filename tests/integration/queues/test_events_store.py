"""The live store's conformance suite: every queue backend's passes every test."""

from __future__ import annotations

from dataclasses import replace

import pytest
from django.test import override_settings

from django_agentexec.ids import uuid7
from django_agentexec.queues import Chunk, LiveStore
from django_agentexec.queues.live import START, is_stream_id
from tests.support.pool_process import until
from tests.support.queue_backends import Backend, RedisBackend, stream_key_of


@pytest.fixture
def store(backend: Backend) -> LiveStore:
    return backend.queue.live


def test_pieces_are_read_in_order_and_from_a_position_on(store: LiveStore) -> None:
    agent_id, other = uuid7(), uuid7()
    store.append([Chunk(agent_id, "one", 1), Chunk(other, "x"), Chunk(agent_id, "two", 1)])
    store.append([Chunk(agent_id, "three", 2)])

    pieces = store.read({agent_id: START}, 10)
    rest = store.read({agent_id: pieces[0].stream_id, other: START}, 10)

    assert [(piece.text, piece.attempt) for piece in pieces] == [("one", 1), ("two", 1), ("three", 2)]
    assert all(is_stream_id(piece.stream_id) for piece in pieces)
    assert [piece.text for piece in rest] == ["two", "three", "x"]


def test_a_limit_is_kept_per_activity(store: LiveStore) -> None:
    first, second = uuid7(), uuid7()
    store.append([Chunk(agent_id, str(n)) for agent_id in (first, second) for n in range(3)])

    pieces = store.read({first: START, second: START}, 2)

    assert [piece.text for piece in pieces] == ["0", "1", "0", "1"]


def test_nothing_was_streamed(store: LiveStore) -> None:
    assert store.read({uuid7(): START}, 10) == []


@override_settings(AGENTEXEC={"STREAM_MAX_ENTRIES": 50})
def test_a_stream_keeps_its_latest_pieces(store: LiveStore) -> None:
    agent_id = uuid7()
    store.append([Chunk(agent_id, str(n)) for n in range(1_000)])

    pieces = [int(piece.text) for piece in store.read({agent_id: START}, 2_000)]

    assert pieces[-1] == 999
    assert 50 <= len(pieces) <= 200  # a server trims by whole nodes of 100


@override_settings(AGENTEXEC={"STREAM_TTL": 2.0})
def test_a_stream_ends_some_time_after_its_last_piece(backend: Backend) -> None:
    agent_id = uuid7()
    backend.queue.live.append([Chunk(agent_id, "soon gone")])
    assert backend.queue.live.read({agent_id: START}, 10)

    backend.forward(3.0)
    until(lambda: not backend.queue.live.read({agent_id: START}, 10), "the stream expired", 5.0)


def test_watched_topics_are_known_for_a_while(backend: Backend) -> None:
    store = backend.queue.live
    store.watch(["a", "b"], 60.0)
    store.watch(["c"], 2.0)
    assert store.watched() == {"a", "b", "c"}

    backend.forward(3.0)
    until(lambda: store.watched() == {"a", "b"}, "c is watched no more", 5.0)


def test_watching_again_does_not_end_it_earlier(backend: Backend) -> None:
    store = backend.queue.live
    store.watch(["a"], 60.0)
    store.watch(["a"], 0.5)

    backend.forward(1.0)

    assert store.watched() == {"a"}


def test_all_that_is_known_of_a_piece_is_kept(store: LiveStore) -> None:
    agent_id = uuid7()
    piece = Chunk(agent_id, "one", 2, fence=1_790_000_000_000_000, offset=7, writer="ab12", label="Clerk")
    store.append([piece])

    (kept,) = store.read({agent_id: START}, 10)

    assert replace(kept, stream_id="") == piece


def test_a_retraction_removes_what_was_there_and_nothing_that_follows(store: LiveStore) -> None:
    agent_id, other = uuid7(), uuid7()
    store.append([Chunk(agent_id, "one"), Chunk(other, "x")])
    (first,) = store.read({agent_id: START}, 10)
    store.append([Chunk(agent_id, "", retracts=True), Chunk(agent_id, "two")])

    pieces = store.read({agent_id: START, other: START}, 10)

    assert [(piece.text, piece.retracts) for piece in pieces] == [("", True), ("two", False), ("x", False)]
    assert store.read({agent_id: first.stream_id}, 10) == pieces[:2]  # later ids, though the stream was emptied


def test_a_piece_is_found_at_its_position_as_long_as_it_is_kept(store: LiveStore) -> None:
    agent_id, other = uuid7(), uuid7()
    store.append([Chunk(agent_id, "one"), Chunk(agent_id, "two")])
    first, second = store.read({agent_id: START}, 10)

    assert store.at({agent_id: first.stream_id, other: first.stream_id}) == {agent_id: first}
    assert store.at({agent_id: "1-1"}) == {}
    store.append([Chunk(agent_id, "", retracts=True)])
    assert store.at({agent_id: second.stream_id}) == {}


def test_pieces_of_the_release_before_the_fence_are_read(redis_backend: RedisBackend) -> None:
    redis, agent_id = redis_backend.redis, uuid7()
    redis.client.xadd(stream_key_of(redis, agent_id), {"text": "one", "attempt": 1})

    (piece,) = redis.live.read({agent_id: START}, 10)

    assert (piece.text, piece.attempt, piece.fence, piece.offset) == ("one", 1, 0, -1)


def test_the_release_before_the_fence_reads_new_pieces(redis_backend: RedisBackend) -> None:
    redis, agent_id = redis_backend.redis, uuid7()
    redis.live.append(
        [Chunk(agent_id, "one", 1, fence=7, offset=0), Chunk(agent_id, "", 1, fence=7, offset=3, retracts=True)]
    )

    ((_, entry),) = redis.client.xrange(stream_key_of(redis, agent_id))  # type: ignore[misc,str-unpack,union-attr]

    assert (entry[b"text"].decode(), int(entry[b"attempt"])) == ("", 1)
