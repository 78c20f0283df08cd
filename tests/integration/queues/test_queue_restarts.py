"""A Redis that was restarted, or replaced by its replica, with older data: no live claim may be lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from unittest import mock

import pytest
from django.conf import settings
from django.test import override_settings
from redis import Redis

from django_agentexec.queues import Ack, Claim, DatabaseState, Message, Outcome
from django_agentexec.queues.redis import RedisQueue
from django_agentexec.queues.redis.connection import learn_servers
from tests.support.pool_process import until
from tests.support.queue_backends import command_calls, key_of, message, refill, use_client
from tests.support.servers import free_port, valkey_server

QUEUE = "default"


class Restartable:
    """A server that forgets what it did not save, and the queues of as many workers as are asked for."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._server = stack.enter_context(valkey_server("--appendonly", "no"))
        self.client = self._connect()

    def worker(self) -> RedisQueue:
        queue = RedisQueue()
        client = self._connect()
        learn_servers(client)
        use_client(queue, client)
        return self._stack.enter_context(closing(queue))

    def running_worker(self) -> RedisQueue:
        """Return the queue of a worker that has sent a heartbeat."""
        queue = self.worker()
        queue.ack_and_claim(QUEUE, "w")
        return queue

    def save(self) -> None:
        self.client.save()

    def restart(self) -> None:
        """Bring the server back with what was saved last."""
        self._server.kill()
        self._server.start()

    def _connect(self) -> Redis:
        return self._stack.enter_context(closing(Redis(unix_socket_path=str(self._server.socket), socket_timeout=5)))


@pytest.fixture
def server() -> Iterator[Restartable]:
    with ExitStack() as stack:
        yield Restartable(stack)


def claim(queue: RedisQueue, wanted: Message) -> Claim:
    queue.enqueue(QUEUE, [wanted])
    (claimed,) = queue.ack_and_claim(QUEUE, "w", limit=1).claimed
    assert claimed.agent_id == wanted.agent_id
    return claimed


def end_pause(client: Redis) -> None:
    counters = key_of(RedisQueue(), "counters")
    if client.hexists(counters, "pause_until"):
        client.hset(counters, "pause_until", "1")


def lose_everything(server: Restartable, witness: RedisQueue) -> None:
    server.client.flushall()
    assert witness.ack_and_claim(QUEUE, "w2").paused
    refill(witness)
    end_pause(server.client)


def test_a_new_workers_first_beat_does_not_hide_a_restart(server: Restartable) -> None:
    old, new = server.running_worker(), server.worker()
    server.save()
    server.restart()
    new.heartbeat(QUEUE, "w2", [])

    assert old.ack_and_claim(QUEUE, "w").needs_recovery


def test_each_queue_notices_a_restart_for_itself(server: Restartable) -> None:
    queue = server.worker()
    for name in ("a", "b"):
        queue.ack_and_claim(name, "w")
    server.save()
    server.restart()

    assert queue.ack_and_claim("a", "w").needs_recovery
    assert queue.ack_and_claim("b", "w").needs_recovery


def test_each_project_on_a_server_notices_a_restart_for_itself(server: Restartable) -> None:
    with override_settings(AGENTEXEC={**settings.AGENTEXEC, "KEY_PREFIX": "another"}):
        another = server.running_worker()
    holder = server.running_worker()
    server.save()
    claimed = claim(holder, message("k:a"))
    server.restart()

    another.ack_and_claim(QUEUE, "w")

    assert holder.heartbeat(QUEUE, "w", [claimed]).lost == []


def test_a_restart_with_its_data_pauses_claims_while_leases_are_out(server: Restartable) -> None:
    holder, other = server.running_worker(), server.running_worker()
    claimed = claim(holder, message("k:a"))
    holder.enqueue(QUEUE, [message("k:a")])
    server.save()
    server.restart()

    assert other.ack_and_claim(QUEUE, "w2", limit=1).needs_recovery
    refill(other)
    assert other.ack_and_claim(QUEUE, "w2", limit=1).next_due
    assert holder.heartbeat(QUEUE, "w", [claimed]).lost == []


@pytest.mark.parametrize("first", ["an idle worker's exchange", "an idle worker's beat", "nobody"])
def test_a_claim_made_after_the_snapshot_is_kept_whoever_speaks_before_its_worker(
    server: Restartable, first: str
) -> None:
    idle, holder = server.running_worker(), server.running_worker()
    server.save()
    claimed = claim(holder, message("k:a"))
    server.restart()

    if first == "an idle worker's exchange":
        idle.ack_and_claim(QUEUE, "w2", limit=1)
    elif first == "an idle worker's beat":
        idle.heartbeat(QUEUE, "w2", [])

    assert holder.heartbeat(QUEUE, "w", [claimed]).lost == []


def test_a_key_that_runs_is_not_given_out_after_a_restart_with_an_idle_snapshot(server: Restartable) -> None:
    idle, holder = server.running_worker(), server.running_worker()
    server.save()
    wanted = message("k:a")
    claim(holder, wanted)
    server.restart()
    idle.ack_and_claim(QUEUE, "w2", limit=1)

    idle.enqueue(QUEUE, [wanted])  # as the reconciler does, whose rows say nothing of leases
    refill(idle)

    assert idle.ack_and_claim(QUEUE, "w2", limit=1).claimed == []


def test_a_worker_that_saw_no_running_row_at_its_start_costs_nobody_a_claim(server: Restartable) -> None:
    holder, starting = server.running_worker(), server.worker()
    server.save()
    claimed = claim(holder, message("k:a"))
    server.restart()

    starting.ack_and_claim(QUEUE, "w2", rows=DatabaseState.NONE)

    assert holder.heartbeat(QUEUE, "w", [claimed]).lost == []


def test_the_pause_of_an_older_loss_is_not_taken_for_todays(server: Restartable) -> None:
    idle, holder = server.running_worker(), server.running_worker()
    lose_everything(server, idle)
    server.save()  # with the epoch of this loss, and its pause, which is over
    lose_everything(server, idle)
    claimed = claim(holder, message("k:a"))
    server.restart()

    assert idle.ack_and_claim(QUEUE, "w2").needs_recovery

    assert holder.heartbeat(QUEUE, "w", [claimed]).lost == []


def test_a_new_worker_on_an_idle_server_that_was_restarted_waits_for_the_refill_only(server: Restartable) -> None:
    server.running_worker()
    server.save()
    server.restart()
    new, wanted = server.worker(), message()
    assert new.ack_and_claim(QUEUE, "w2").needs_recovery
    refill(new)

    claim(new, wanted)


def test_one_restart_is_one_pause(server: Restartable) -> None:
    workers = [server.running_worker() for _ in range(2)]
    server.save()
    server.restart()
    assert workers[0].ack_and_claim(QUEUE, "w").paused
    refill(workers[0])
    end_pause(server.client)

    assert not workers[1].ack_and_claim(QUEUE, "w2").paused
    assert not workers[0].ack_and_claim(QUEUE, "w").paused


@pytest.mark.parametrize("same", [True, False], ids=["of the same activity", "of another activity of its key"])
def test_a_claim_is_taken_back_though_the_snapshot_knows_an_older_one(server: Restartable, same: bool) -> None:
    idle, holder = server.running_worker(), server.running_worker()
    before, after = message("k:a"), message("k:a")
    old = claim(holder, before)
    server.save()
    if same:
        holder.ack_and_claim(QUEUE, "w", [Ack(old, Outcome.RELEASE)])
        (claimed,) = holder.ack_and_claim(QUEUE, "w", limit=1).claimed
    else:
        holder.ack_and_claim(QUEUE, "w", [Ack(old, Outcome.DONE)])
        claimed = claim(holder, after)
    server.restart()
    idle.ack_and_claim(QUEUE, "w2", limit=1)

    assert holder.heartbeat(QUEUE, "w", [claimed]).lost == []


@pytest.mark.parametrize("newer_first", [True, False])
def test_of_two_who_say_that_they_hold_a_key_the_newer_one_gets_it_back(server: Restartable, newer_first: bool) -> None:
    zombie, holder = server.running_worker(), server.running_worker()
    old = claim(zombie, message("k:a"))
    zombie.ack_and_claim(QUEUE, "w", [Ack(old, Outcome.DONE)])
    new = claim(holder, message("k:a"))
    server.client.flushall()

    beats = [(zombie, old), (holder, new)]
    for queue, claimed in reversed(beats) if newer_first else beats:
        queue.heartbeat(QUEUE, "w", [claimed])

    assert holder.heartbeat(QUEUE, "w", [new]).lost == []
    assert zombie.heartbeat(QUEUE, "w", [old]).lost == [old.agent_id]


class Replicated:
    """Two servers, of which one is the other's replica, and a worker's way to the present master."""

    def __init__(self, stack: ExitStack) -> None:
        self._ports = [free_port(), free_port()]
        for port in self._ports:
            at_once = ("--repl-diskless-sync-delay", "0")  # by default a master waits 5 s for further replicas
            stack.enter_context(valkey_server("--bind", "127.0.0.1", "--port", str(port), *at_once))
        self._clients = [stack.enter_context(closing(Redis(port=port, socket_timeout=5))) for port in self._ports]
        for client in self._clients:
            learn_servers(client)
        self._stack = stack
        self._queues: list[RedisQueue] = []
        self._master = 0
        self.follow()

    @property
    def _replica(self) -> Redis:
        return self._clients[1 - self._master]

    def worker(self) -> RedisQueue:
        """Return the queue of a worker that has sent a heartbeat."""
        queue = self._stack.enter_context(closing(RedisQueue()))
        self._queues.append(queue)
        use_client(queue, self._clients[self._master])
        queue.ack_and_claim(QUEUE, "w")
        return queue

    def follow(self) -> None:
        """Have the other server hold all that the master has."""
        self._replica.replicaof("127.0.0.1", str(self._ports[self._master]))
        until(lambda: self._replica.info("replication")["master_link_status"] == "up", "the replica's link")
        self._clients[self._master].wait(1, 10_000)

    def cut(self) -> None:
        """Let the replica miss what comes now."""
        self._replica.replicaof("NO", "ONE")

    def fail_over(self) -> None:
        """Have everybody speak to what was the replica."""
        self._master = 1 - self._master
        for queue in self._queues:
            use_client(queue, self._clients[self._master])


def test_claims_that_were_not_replicated_outlive_a_failover_and_the_one_back() -> None:
    with ExitStack() as stack:
        servers = Replicated(stack)
        idle, holder = servers.worker(), servers.worker()
        for _ in ("there", "and back, to a server that was not restarted"):
            servers.follow()
            servers.cut()
            claimed = claim(holder, message("k:a"))
            servers.fail_over()

            assert idle.ack_and_claim(QUEUE, "w2", limit=1).needs_recovery
            assert holder.heartbeat(QUEUE, "w", [claimed]).lost == []

            holder.ack_and_claim(QUEUE, "w", [Ack(claimed, Outcome.DONE)])
            refill(idle)
            end_pause(holder.client)


def test_a_server_that_has_not_been_restarted_is_not_asked_who_it_is(server: Restartable) -> None:
    queue = server.running_worker()
    before = command_calls(server.client, "info")

    for _ in range(10):
        queue.ack_and_claim(QUEUE, "w1", limit=1)

    assert command_calls(server.client, "info") - before == 1  # by this test


def test_behind_a_proxy_that_keeps_connections_a_restart_is_noticed_by_the_next_heartbeat(server: Restartable) -> None:
    """A worker's own connection names a process of the server that is no more."""
    queue = server.running_worker()
    queue.enqueue(QUEUE, [message()])
    # As after a restart with the data: the server differs from the recorded server and from that of the connection.
    server.client.hset(key_of(queue, "counters"), "server", "0" * 40)
    with mock.patch("django_agentexec.queues.redis.queue.server_of", return_value="0" * 40):
        assert not queue.ack_and_claim(QUEUE, "w1").paused
        queue.heartbeat(QUEUE, "w1", [])
        assert queue.ack_and_claim(QUEUE, "w1").paused
        refill(queue)
        end_pause(server.client)
        # From here on what it says differs from what is noted, and the server is asked: no pause without an end.
        assert len(queue.ack_and_claim(QUEUE, "w1", limit=1).claimed) == 1
        assert not queue.ack_and_claim(QUEUE, "w1").paused
