"""What only the Redis backend has: declared keys, constant cost, clusters, and recovery from a loss of data."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from django.test import override_settings
from redis import Redis

from django_agentexec import QueueUnavailable
from django_agentexec.ids import uuid7
from django_agentexec.queues import Ack, DatabaseState, Message, Outcome
from django_agentexec.queues.redis import RedisQueue
from django_agentexec.queues.redis.queue import KEYS, PAGE_SIZE, script
from tests.support.queue_backends import RedisBackend, command_calls, message, refill
from tests.support.servers import valkey_server

QUEUE = "default"


@pytest.fixture
def backend(redis_backend: RedisBackend) -> RedisBackend:
    return redis_backend


def total_commands(client: Redis) -> int:
    """Return how many commands the server has run, those of scripts included."""
    stats: dict[str, Any] = client.info("commandstats")  # type: ignore[assignment]
    return sum(command["calls"] for command in stats.values())


def test_all_keys_are_declared_and_vanish_with_the_work(backend: RedisBackend) -> None:
    backend.queue.enqueue(QUEUE, [message("k:a"), message("k:a"), message()])
    claims = backend.queue.ack_and_claim(QUEUE, "w1", limit=10).claimed
    allowed = {backend.key(name).encode() for name in KEYS}
    assert set(backend.redis.client.keys("{*")) <= allowed  # type: ignore[arg-type]

    for claimed in claims:
        backend.queue.ack_and_claim(QUEUE, "w1", [Ack(claimed, Outcome.DONE)])
    for claimed in backend.queue.ack_and_claim(QUEUE, "w1", limit=10).claimed:
        backend.queue.ack_and_claim(QUEUE, "w1", [Ack(claimed, Outcome.DONE)])

    left = {backend.key("counters").encode(), backend.key("wake").encode()}
    assert set(backend.redis.client.keys("{*")) <= left  # type: ignore[arg-type]


def test_a_listener_whose_connection_was_cut_opens_no_other(backend: RedisBackend) -> None:
    listener = backend.queue.listen_finished()
    listener.watch(uuid7())
    listener.get(0)
    client = backend.redis.client
    client.client_kill_filter(_type="pubsub")

    with pytest.raises(QueueUnavailable):
        listener.get(10)
    with pytest.raises(QueueUnavailable):
        listener.get(0)
    with pytest.raises(QueueUnavailable):
        listener.watch(uuid7())

    assert client.client_list(_type="pubsub") == []
    listener.close()


def test_a_batch_is_one_round_trip(backend: RedisBackend) -> None:
    messages = [message() for _ in range(500)]
    backend.queue.enqueue(QUEUE, messages[:1])
    claims = backend.queue.ack_and_claim(QUEUE, "w1", limit=1).claimed
    before = command_calls(backend.redis.client, "evalsha")

    backend.queue.enqueue(QUEUE, messages[1:])
    claims += backend.queue.ack_and_claim(QUEUE, "w1", limit=500).claimed
    backend.queue.ack_and_claim(QUEUE, "w1", [Ack(c, Outcome.DONE) for c in claims])

    assert len(claims) == 500
    assert command_calls(backend.redis.client, "evalsha") - before == 3
    assert command_calls(backend.redis.client, "scan") == 0


def test_the_commands_of_a_batch_do_not_grow_with_it(backend: RedisBackend) -> None:
    def commands(size: int) -> int:
        before = total_commands(backend.redis.client)
        backend.queue.enqueue(QUEUE, [message() for _ in range(size)])
        claims = backend.queue.ack_and_claim(QUEUE, "w1", limit=size).claimed
        backend.queue.ack_and_claim(QUEUE, "w1", [Ack(c, Outcome.DONE) for c in claims])
        assert len(claims) == size
        return total_commands(backend.redis.client) - before

    commands(1)  # lets the server know the scripts
    few, many = commands(10), commands(210)
    # One announcement of each end is all that is done one by one.
    assert many - few == 200


def test_a_release_costs_the_same_however_many_leases_others_have(backend: RedisBackend) -> None:
    def hold(count: int) -> None:
        backend.queue.enqueue(QUEUE, [message() for _ in range(count)])
        assert len(backend.queue.ack_and_claim(QUEUE, "others", limit=count).claimed) == count
        backend.queue.heartbeat(QUEUE, "others", [])

    def release() -> tuple[int, int]:
        """Return the commands of a release, and how many of them read a whole set."""
        before, ranges = total_commands(backend.redis.client), command_calls(backend.redis.client, "zrange")
        assert backend.queue.release_worker(QUEUE, "nobody", crashed=True) == 0
        return total_commands(backend.redis.client) - before, command_calls(backend.redis.client, "zrange") - ranges

    hold(10)
    release()  # lets the server know the script
    few = release()
    hold(500)

    assert release() == few
    assert few[1] == 0


def test_leases_are_read_in_pages(backend: RedisBackend) -> None:
    count = 2 * PAGE_SIZE + 100
    backend.queue.enqueue(QUEUE, [message() for _ in range(count)])
    claims = backend.queue.ack_and_claim(QUEUE, "w1", limit=count).claimed
    before = command_calls(backend.redis.client, "evalsha") + command_calls(backend.redis.client, "eval")

    assert backend.queue.list_leases(QUEUE) == {claim.agent_id: claim.fence for claim in claims}

    assert command_calls(backend.redis.client, "evalsha") + command_calls(backend.redis.client, "eval") - before >= 3


@pytest.mark.parametrize("partition", ["", "k:{}"], ids=["without lock keys", "with lock keys"])
def test_a_batch_may_exceed_the_arguments_of_one_command(backend: RedisBackend, partition: str) -> None:
    backend.queue.enqueue(QUEUE, [message(partition.format(number)) for number in range(5_000)])
    claims = backend.queue.ack_and_claim(QUEUE, "w1", limit=5_000).claimed
    assert len({claim.agent_id for claim in claims}) == 5_000
    assert backend.queue.heartbeat(QUEUE, "w1", claims).lost == []
    backend.queue.ack_and_claim(QUEUE, "w1", [Ack(c, Outcome.DONE) for c in claims])
    stats = backend.queue.stats(QUEUE)
    assert (stats.ready, stats.pending, stats.leased) == (0, 0, 0)


def test_scripts_are_sent_again_to_a_server_that_forgot_them(backend: RedisBackend) -> None:
    backend.queue.enqueue(QUEUE, [message()])
    backend.redis.client.script_flush()

    assert len(backend.queue.ack_and_claim(QUEUE, "w1", limit=1).claimed) == 1


def test_scripts_keep_to_their_declared_keys_in_a_cluster() -> None:
    with valkey_server("--cluster-enabled", "yes") as server, Redis(unix_socket_path=str(server.socket)) as client:
        client.execute_command("CLUSTER", "ADDSLOTS", *range(16384))  # ADDSLOTSRANGE needs Redis 7
        keys = [f"{{agentexec:q}}:{name}" for name in KEYS]
        agent_id = str(uuid7())
        _, enqueue = script("enqueue")
        _, ack_and_claim = script("ack_and_claim")

        def run(text: str, *args: Any) -> Any:
            return client.eval(text, len(keys), *keys, 15000, "agentexec", *args)

        while b"cluster_state:ok" not in client.execute_command("CLUSTER", "INFO"):
            pass
        assert run(enqueue, 0, agent_id, 4, 0, 0, 0, 0, "k:a", "") == 1
        reply = run(ack_and_claim, "w1", 1, 0, "", "none", 1000, "", 0)
        assert reply[6].decode() == agent_id


def test_an_absent_server_is_said_plainly() -> None:
    with valkey_server() as server, override_settings(AGENTEXEC={"REDIS_URL": server.url}):
        queue = RedisQueue()
        queue.ping()
        server.kill()
        with pytest.raises(QueueUnavailable, match="does not answer"):
            queue.enqueue(QUEUE, [message()])


def test_a_user_who_may_not_ask_who_the_server_is_claims_nothing_and_is_told() -> None:
    with valkey_server() as server, Redis(unix_socket_path=str(server.socket)) as client:
        client.acl_setuser(
            "app", enabled=True, nopass=True, keys="*", channels="*", categories=["+@all", "-@dangerous"]
        )
        with override_settings(AGENTEXEC={"REDIS_URL": f"unix://app:any@{server.socket}"}):
            queue = RedisQueue()
            with pytest.raises(QueueUnavailable, match=r"no permissions to run the 'info' command|can't run.*INFO"):
                queue.ack_and_claim(QUEUE, "w1", limit=1)
            queue.close()


def test_after_a_flush_live_workers_take_their_claims_back_before_anyone_claims(backend: RedisBackend) -> None:
    running, waiting = message("k:a"), message("k:a")
    backend.queue.enqueue(QUEUE, [running])
    (claimed,) = backend.queue.ack_and_claim(QUEUE, "w1", limit=1).claimed
    other = RedisQueue()
    other.ack_and_claim(QUEUE, "w2", limit=1)
    backend.redis.client.flushall()

    # The reconciler pushes both; the other worker asks for work first.
    backend.queue.enqueue(QUEUE, [running, waiting])
    assert other.ack_and_claim(QUEUE, "w2", limit=5).needs_recovery
    refill(other)
    paused = other.ack_and_claim(QUEUE, "w2", limit=5)
    assert paused.claimed == []
    assert paused.next_due is not None
    assert backend.queue.heartbeat(QUEUE, "w1", [claimed]).lost == []
    backend.forward(paused.next_due + 1)

    assert other.ack_and_claim(QUEUE, "w2", limit=5).claimed == []
    after = backend.queue.ack_and_claim(QUEUE, "w1", [Ack(claimed, Outcome.DONE)], limit=5).claimed
    assert [c.agent_id for c in after] == [waiting.agent_id]
    assert after[0].fence > claimed.fence
    other.close()


def test_a_heartbeat_that_is_the_first_to_meet_a_flush_takes_its_claims_back(backend: RedisBackend) -> None:
    running = message("k:a")
    backend.queue.enqueue(QUEUE, [running])
    (claimed,) = backend.queue.ack_and_claim(QUEUE, "w1", limit=1).claimed
    backend.redis.client.flushall()
    backend.queue.enqueue(QUEUE, [running])

    assert backend.queue.heartbeat(QUEUE, "w1", [claimed]).lost == []
    assert backend.queue.ack_and_claim(QUEUE, "w2", limit=1).paused
    assert backend.queue.stats(QUEUE).leased == 1


def test_a_claim_that_is_taken_back_keeps_the_next_fence_above_its_own(backend: RedisBackend) -> None:
    first, second = message("k:a"), message("k:a")
    backend.queue.enqueue(QUEUE, [first, second])
    (claimed,) = backend.queue.ack_and_claim(QUEUE, "w1", limit=1).claimed
    ahead = replace(claimed, fence=claimed.fence + 3_600_000_000)  # of a server whose clock is an hour ahead
    backend.redis.client.flushall()
    backend.queue.enqueue(QUEUE, [first, second])

    assert backend.queue.heartbeat(QUEUE, "w1", [ahead]).lost == []
    refill(backend.queue)
    backend.forward(60)
    (after,) = backend.queue.ack_and_claim(QUEUE, "w1", [Ack(ahead, Outcome.DONE)], limit=1).claimed

    assert after.fence > ahead.fence


def test_a_server_that_hung_lets_live_workers_beat_before_their_leases_expire(backend: RedisBackend) -> None:
    backend.queue.enqueue(QUEUE, [message(), message()])
    (ours,) = backend.queue.ack_and_claim(QUEUE, "w1", limit=1).claimed
    (theirs,) = backend.queue.ack_and_claim(QUEUE, "w2", limit=1).claimed
    backend.queue.heartbeat(QUEUE, "w1", [ours])
    backend.forward(60)
    beat = int(backend.redis.client.hget(backend.key("counters"), "beat"))  # type: ignore[arg-type]
    backend.redis.client.hset(backend.key("counters"), "beat", str(beat - 60_000))

    assert backend.queue.heartbeat(QUEUE, "w1", [ours]).lost == []
    assert backend.queue.heartbeat(QUEUE, "w2", [theirs]).lost == []


def test_a_zombie_gets_nothing_back_after_the_pause(backend: RedisBackend) -> None:
    running = message("k:a")
    backend.queue.enqueue(QUEUE, [running])
    (old,) = backend.queue.ack_and_claim(QUEUE, "w1", limit=1).claimed
    other = RedisQueue()
    other.ack_and_claim(QUEUE, "w2", limit=1)
    backend.redis.client.flushall()
    other.ack_and_claim(QUEUE, "w2", limit=1)
    backend.queue.enqueue(QUEUE, [running])
    refill(other)
    backend.forward((other.ack_and_claim(QUEUE, "w2", limit=1).next_due or 0) + 1)
    (new,) = other.ack_and_claim(QUEUE, "w2", limit=1).claimed

    assert backend.queue.heartbeat(QUEUE, "w1", [old]).lost == [running.agent_id]
    assert other.heartbeat(QUEUE, "w2", [new]).lost == []
    other.close()


def test_a_new_worker_on_a_new_server_does_not_pause(backend: RedisBackend) -> None:
    backend.queue.enqueue(QUEUE, [message()])

    assert len(backend.queue.ack_and_claim(QUEUE, "w1", limit=1).claimed) == 1


def test_a_new_worker_pauses_on_a_flushed_server_if_rows_are_running(backend: RedisBackend) -> None:
    backend.queue.enqueue(QUEUE, [message()])

    claims = backend.queue.ack_and_claim(QUEUE, "w1", limit=1, rows=DatabaseState.RUNNING)
    assert (claims.claimed, claims.needs_recovery) == ([], True)
    refill(backend.queue)
    claims = backend.queue.ack_and_claim(QUEUE, "w1", limit=1)
    assert (claims.claimed, claims.needs_recovery) == ([], False)
    assert claims.next_due
    backend.forward(claims.next_due + 1)

    assert len(backend.queue.ack_and_claim(QUEUE, "w1", limit=1).claimed) == 1


def test_what_comes_after_a_flush_does_not_overtake_what_was_lost(backend: RedisBackend) -> None:
    lost, later = message("k:a"), message("k:a")
    backend.queue.ack_and_claim(QUEUE, "w1")
    backend.queue.enqueue(QUEUE, [lost])
    backend.redis.client.flushall()
    backend.queue.enqueue(QUEUE, [later])
    refused = backend.queue.ack_and_claim(QUEUE, "w1", limit=5)
    assert (refused.claimed, refused.needs_recovery) == ([], True)

    backend.queue.enqueue(QUEUE, [replace(lost, sequence=1)])
    refill(backend.queue)
    backend.forward(60)

    (claimed,) = backend.queue.ack_and_claim(QUEUE, "w1", limit=5).claimed
    assert claimed.agent_id == lost.agent_id


def test_a_refill_does_not_end_the_wait_for_a_later_loss(backend: RedisBackend) -> None:
    backend.queue.ack_and_claim(QUEUE, "w1")
    backend.redis.client.flushall()
    assert backend.queue.ack_and_claim(QUEUE, "w1").needs_recovery
    token = backend.queue.begin_recovery(QUEUE)
    backend.redis.client.flushall()
    assert backend.queue.ack_and_claim(QUEUE, "w1").needs_recovery

    backend.queue.end_recovery(QUEUE, token)

    assert backend.queue.ack_and_claim(QUEUE, "w1").needs_recovery
    refill(backend.queue)
    assert not backend.queue.ack_and_claim(QUEUE, "w1").needs_recovery


def test_a_new_workers_first_beat_does_not_hide_a_flush(backend: RedisBackend) -> None:
    backend.queue.heartbeat(QUEUE, "w1", [])

    assert backend.queue.ack_and_claim(QUEUE, "w1", rows=DatabaseState.WAITING).needs_recovery


def test_a_queue_that_nobody_refills_goes_on_after_a_while(backend: RedisBackend) -> None:
    backend.queue.enqueue(QUEUE, [message()])
    assert backend.queue.ack_and_claim(QUEUE, "w1", limit=1, rows=DatabaseState.WAITING).needs_recovery

    backend.forward(31)

    assert len(backend.queue.ack_and_claim(QUEUE, "w1", limit=1).claimed) == 1


@pytest.mark.parametrize("name", ["meta", "pending", "ready", "locks", "leases", "delayed", "counters"])
def test_an_evicted_key_costs_time_only(backend: RedisBackend, name: str) -> None:
    first, second, later = message("k:a"), message("k:a"), Message(uuid7(), "i:later", delay=30)
    free = message("k:b")
    backend.queue.enqueue(QUEUE, [first, second, later])
    (claimed,) = backend.queue.ack_and_claim(QUEUE, "w1", limit=1).claimed
    backend.queue.enqueue(QUEUE, [free])
    backend.redis.client.delete(backend.key(name))

    beat = backend.queue.heartbeat(QUEUE, "w1", [claimed])
    assert backend.queue.ack_and_claim(QUEUE, "w1").paused
    rows = [replace(each, sequence=n + 1) for n, each in enumerate([first, second, later, free])]
    missing = backend.queue.missing(QUEUE, [each.agent_id for each in rows])
    backend.queue.enqueue(QUEUE, [each for each in rows if each.agent_id in missing])
    refill(backend.queue)
    backend.forward(60)

    assert (beat.lost, claimed.agent_id) == ([], first.agent_id)
    ended = [Ack(claimed, Outcome.DONE)]
    rest = []
    while claims := backend.queue.ack_and_claim(QUEUE, "w1", ended, limit=1).claimed:
        rest += [claims[0].agent_id]
        ended = [Ack(claims[0], Outcome.DONE)]
    assert sorted(rest) == sorted(each.agent_id for each in (second, later, free))
