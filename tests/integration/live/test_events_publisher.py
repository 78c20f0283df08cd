"""The publisher: few hints for many changes, none where nobody watches, and no harm where the layer is unavailable."""

from __future__ import annotations

import logging
import time
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_agentexec import activity
from django_agentexec.live import publisher as module
from django_agentexec.live.channel_layer import activity_topic, feed_topic
from django_agentexec.live.publisher import Publisher
from django_agentexec.queues import get_queue
from django_agentexec.signals import worker_stopped
from tests.support.pool_process import until

pytestmark = pytest.mark.django_db(transaction=True)


class Layer:
    """A channel layer that keeps what is sent; `is_away` lets it fail."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.is_away = False

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        assert group == message["topic"]
        if self.is_away:
            raise ConnectionError("refused")
        self.sent.append(message)

    def changed(self, topic: str) -> list[UUID]:
        """Return the activities in the notices of a topic."""
        return [UUID(agent_id) for m in self.sent if m["topic"] == topic for agent_id, _ in m["changed"]]


@pytest.fixture
def layer(monkeypatch: pytest.MonkeyPatch) -> Layer:
    """Announce to this layer, from a publisher of the test's own."""
    made = Layer()
    monkeypatch.setattr(module, "shared_layer", lambda: made)
    monkeypatch.setattr(module, "publisher", Publisher())
    return made


def flush() -> None:
    assert module.publisher.flush(10.0)


def test_nothing_is_sent_where_nobody_watches(layer: Layer) -> None:
    activity.create("import")
    flush()

    assert layer.sent == []


def test_each_change_is_told_to_who_watches_it(layer: Layer) -> None:
    watched, other = uuid4(), uuid4()
    get_queue().live.watch([activity_topic(watched)], 60.0)
    for agent_id in (watched, other):
        activity.create("import", agent_id=agent_id)
    flush()

    assert layer.changed(activity_topic(watched)) == [watched]
    assert layer.changed(activity_topic(other)) == []


def test_a_feed_is_told_in_one_message(layer: Layer) -> None:
    get_queue().live.watch([feed_topic("all")], 60.0)
    runs = [activity.create("import") for _ in range(30)]
    flush()

    assert set(layer.changed(feed_topic("all"))) == set(runs)
    assert len(layer.sent) < 10


class Idle(Publisher):
    """A publisher without a thread."""

    def _wake(self) -> None: ...

    @property
    def changed(self) -> dict[UUID, int]:
        """The changes that wait, with the id of the last line of each."""
        return self._changed

    def begin_batch_before_next_record(self) -> None:
        """Let a batch take all changes at the moment at which the next call waits for the lock."""

        class Lock:
            def __enter__(lock) -> None:
                self._changed = {}

            def __exit__(lock, *_: object) -> None: ...

        self._lock = cast(Any, Lock())


def test_a_change_that_waited_for_the_begin_of_a_round_belongs_to_the_next_one() -> None:
    publisher, agent_id = Idle(), uuid4()
    publisher.begin_batch_before_next_record()

    publisher.record([(agent_id, 1)])

    assert publisher.changed == {agent_id: 1}


def test_a_burst_is_a_message_per_interval(layer: Layer) -> None:
    agent_id = activity.create("import")
    flush()
    get_queue().live.watch([activity_topic(agent_id)], 60.0)
    began = time.monotonic()
    for number in range(500):
        activity.update(agent_id, f"line {number}")
    flush()
    took = time.monotonic() - began

    newest = max(log_id for message in layer.sent for _, log_id in message["changed"])
    assert newest == activity.detail(agent_id).logs[-1].id
    assert len(layer.sent) <= took / 0.1 + 2


def test_a_change_after_quiet_is_told_at_once(layer: Layer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WATCHED_INTERVAL", 2.0)  # so that "at once" may take its time
    agent_id = activity.create("import")
    flush()
    get_queue().live.watch([activity_topic(agent_id)], 60.0)
    time.sleep(module.WATCHED_INTERVAL)  # the quiet itself

    began = time.monotonic()
    activity.update(agent_id, "now")
    until(lambda: layer.sent, "the hint is sent", 5.0)

    assert time.monotonic() - began < module.WATCHED_INTERVAL


def test_a_layer_that_is_away_hurts_nobody_and_is_told_once(layer: Layer, caplog: pytest.LogCaptureFixture) -> None:
    agent_id = activity.create("import")
    get_queue().live.watch([activity_topic(agent_id)], 60.0)
    flush()
    layer.is_away = True
    layer.sent.clear()
    with caplog.at_level(logging.WARNING, "django_agentexec.live"):
        for number in range(3):
            activity.update(agent_id, f"line {number}")
            flush()
    layer.is_away = False
    activity.update(agent_id, "back")
    flush()

    assert layer.changed(activity_topic(agent_id)) == [agent_id]
    assert len([record for record in caplog.records if "Could not publish changes" in record.message]) <= 1


def test_the_end_of_a_worker_waits_for_the_last_hints(layer: Layer) -> None:
    agent_id = activity.create("import")
    get_queue().live.watch([activity_topic(agent_id)], 60.0)
    activity.update(agent_id, "last message")

    worker_stopped.send(None, worker="w")

    assert agent_id in layer.changed(activity_topic(agent_id))


def test_a_change_costs_its_writer_no_query(layer: Layer) -> None:
    get_queue().live.watch([feed_topic("all")], 60.0)
    agent_id = activity.create("import")
    with CaptureQueriesContext(connection) as with_watchers:
        activity.update(agent_id, "one")
    flush()
    get_queue().live.clear()  # type: ignore[attr-defined]
    with CaptureQueriesContext(connection) as without:
        activity.update(agent_id, "two")

    assert len(with_watchers) == len(without)


def test_a_crowd_of_changes_is_dropped_not_kept(layer: Layer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CHANGES", 10)
    made = Idle()

    for _ in range(10):
        made.record((uuid4(), 0) for _ in range(10))

    assert len(made.changed) == 10
