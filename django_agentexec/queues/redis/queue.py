"""The queue on Redis or Valkey: builds the arguments of the Lua scripts and parses their replies.

`lua/prelude.lua` describes the data; `base.Queue` is the contract. All keys of a queue name share one hash tag, and
each script declares its keys. Nevertheless a Redis Cluster is not supported, since the client connects to one server.
Requires Redis 6.2 or Valkey 7.2.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Mapping, Sequence
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any
from uuid import UUID

from redis import Redis
from redis.exceptions import NoScriptError

from ...conf import conf
from .. import base
from ..board import WorkerInfo, WorkersReading
from ..limits import Limits, joined, quote_key
from .breakers import RedisBreakers
from .connection import (
    CLIENT_ERRORS,
    learn_servers,
    make_client,
    queue_error,
    raise_if_cluster,
    reachable,
    server_of,
    server_setting,
)
from .listeners import CanceledListener, FinishedListener
from .live import RedisLiveStore
from .places import limit_keys_of, place_of
from .workers import RedisWorkers

# The names are fixed, since releases share the keys during a deploy; `lapses` holds the expired leases.
KEYS = (
    "pending", "ready", "suspects", "locks", "leases", "meta",
    "delayed", "dead", "cancels", "again", "counters", "wake", "by_worker", "lapses",
    "overrides", "slots", "parked", "starts", "resumes",
)  # fmt: skip
MAX_BATCH = 1_000  # messages per call of `enqueue`: about 1 ms in the server, for which other clients wait
SCRIPT_PARTS = ("prelude", "losses", "ring", "limits", "moves")  # precede the file of each verb
PAGE_SIZE = 500  # claims per call of `list_leases`: about 2 ms in the server
WAIT_MARGIN = 5.0  # seconds that a blocking read may exceed its own limit


class RedisQueue(base.Queue):
    """The queue on one Redis or Valkey server, as configured in REDIS_URL or CACHES (or embedded)."""

    supports_limits = True

    def __init__(self) -> None:
        self._prefix = conf.KEY_PREFIX
        self._lock = threading.Lock()
        self._client: Redis | None = None
        self._blocking: Redis | None = None
        self._pid = os.getpid()
        self._epochs: dict[str, str] = {}
        self._queues: set[str] = set()
        self._counters: set[str] = set()
        self._live = RedisLiveStore(lambda: self.client, self._prefix)
        self._workers = RedisWorkers(
            lambda: self.client, self._prefix, partial(self.try_acquire_leadership, "forget-workers")
        )

    @property
    def server_setting(self) -> str:
        return server_setting()

    def enqueue(self, queue: str, messages: Sequence[base.Message]) -> int:
        added = 0
        for start in range(0, len(messages), MAX_BATCH):
            batch = messages[start : start + MAX_BATCH]
            args: list[Any] = [max(message.fence for message in batch)]
            for message in batch:
                partition, limits = place_of(message) if message.limits else (message.partition, "")
                args += (
                    str(message.agent_id),
                    message.priority,
                    message.sequence,
                    max(0, int(message.delay * 1000)),
                    message.crashes,
                    int(message.again),
                    partition,
                    limits,
                )
            added += self._run("enqueue", queue, args)
        return added

    def ack_and_claim(
        self,
        queue: str,
        worker: str,
        acks: Sequence[base.Ack] = (),
        limit: int = 0,
        *,
        quarantine: bool = False,
        rows: base.DatabaseState = base.DatabaseState.NONE,
        only: UUID | None = None,
    ) -> base.Claims:
        done: list[Any] = []
        others: list[Any] = []
        for ack in acks:
            if ack.outcome is base.Outcome.DONE:
                done += (str(ack.claim.agent_id), ack.claim.fence)
            else:
                delay = max(0, int(ack.delay * 1000))
                outcome = ack.outcome.value + joined(ack.limits)
                others += (str(ack.claim.agent_id), ack.claim.fence, outcome, delay)

        epoch = self._epochs.get(queue, "")
        head = [worker, limit, int(quarantine) if only is None else str(only), epoch, rows.value, _pause()]
        reply = self._run("ack_and_claim", queue, head, [len(done) // 2, *done, *others], with_server=True)
        known, due, waiting, paused, needs_recovery, revision, *claimed = reply
        self._epochs[queue] = known.decode()
        parts = iter(claimed)
        return base.Claims(
            claimed=[
                base.Claim(
                    UUID(agent_id.decode()),
                    int(fence),
                    int(crashes),
                    queue,
                    ticket.decode(),
                    expired_leases,
                    limit_keys_of(ticket),
                )
                for agent_id, fence, crashes, expired_leases, ticket in zip(
                    parts, parts, parts, parts, parts, strict=True
                )
            ],
            next_due=None if due < 0 else due / 1000,
            waiting=bool(waiting),
            paused=bool(paused),
            needs_recovery=bool(needs_recovery),
            limits_revision=revision.decode(),
        )

    def limits_revision(self, queue: str) -> str:
        with reachable():
            revision: Any = self.client.hget(self._keys(queue)[KEYS.index("counters")], "limits")
        return revision.decode() if revision else ""

    def set_limits(self, queue: str, limits: Limits, *, replaces: str) -> bool:
        texts = [part for key, limit in limits.by_key.items() for part in (quote_key(key), limit.numbers)]
        return bool(self._run("set_limits", queue, [replaces, limits.revision, int(limits.is_paused), *texts]))

    def begin_recovery(self, queue: str) -> str:
        with reachable():
            token: Any = self.client.hget(self._keys(queue)[KEYS.index("counters")], "refill")
        return token.decode() if token else ""

    def end_recovery(self, queue: str, token: str) -> None:
        self._run("end_recovery", queue, [token])

    def heartbeat(self, queue: str, worker: str, claims: Sequence[base.Claim]) -> base.HeartbeatReply:
        if not claims and queue not in self._epochs:
            # `ack_and_claim` comes first, since it passes the state of the rows: an earlier heartbeat would make a
            # queue that has lost its data look like a new queue.
            return base.HeartbeatReply([], [])
        parts = [part for claim in claims for part in (str(claim.agent_id), claim.fence, claim.ticket)]

        epoch, lost, canceled = self._run("heartbeat", queue, [self._epochs.get(queue, ""), _pause(), *parts])
        self._epochs[queue] = epoch.decode()
        return base.HeartbeatReply([UUID(i.decode()) for i in lost], [UUID(i.decode()) for i in canceled])

    def release_worker(
        self, queue: str, worker: str, *, keep: Sequence[base.Claim] | None = None, crashed: bool
    ) -> int:
        kept = [part for claim in keep or () for part in (str(claim.agent_id), claim.fence)]
        released: int = self._run("release_worker", queue, [worker, int(crashed), int(keep is not None), *kept])
        return released

    def cancel(self, queue: str, agent_ids: Sequence[UUID]) -> None:
        for start in range(0, len(agent_ids), MAX_BATCH):
            self._run("cancel", queue, [str(agent_id) for agent_id in agent_ids[start : start + MAX_BATCH]])

    def list_leases(self, queue: str) -> dict[UUID, int]:
        claims: dict[UUID, int] = {}
        cursor = b"0"
        while True:
            cursor, *page = self._run("list_leases", queue, [cursor, PAGE_SIZE])
            parts = iter(page)
            claims |= {UUID(agent_id.decode()): int(fence) for agent_id, fence in zip(parts, parts, strict=True)}
            if cursor == b"0":
                return claims

    def request_stop(self, queue: str, claims: Mapping[UUID, int]) -> int:
        pairs, notified = list(claims.items()), 0
        for start in range(0, len(pairs), MAX_BATCH):
            part = pairs[start : start + MAX_BATCH]
            notified += self._run(
                "request_stop", queue, [arg for agent_id, fence in part for arg in (str(agent_id), fence)]
            )
        return notified

    def missing(self, queue: str, agent_ids: Sequence[UUID]) -> list[UUID]:
        absent: list[UUID] = []
        for start in range(0, len(agent_ids), MAX_BATCH):
            part = agent_ids[start : start + MAX_BATCH]
            with reachable():
                found: Any = self.client.hmget(self._keys(queue)[KEYS.index("meta")], [str(i) for i in part])
            absent += [agent_id for agent_id, text in zip(part, found, strict=True) if text is None]
        return absent

    def wait(self, queues: Sequence[str], timeout: float) -> bool:
        keys = [self._keys(queue)[KEYS.index("wake")] for queue in queues]
        with reachable():
            # Redis waits without a limit if the timeout is 0.
            return self.blocking_client.blpop(keys, max(timeout, 0.01)) is not None

    def stats(self, queue: str) -> base.QueueStats:
        return base.QueueStats(*self._run("stats", queue, []))

    def listen_canceled(self) -> base.Listener:
        return CanceledListener(self.blocking_client, f"{self._prefix}:canceled")

    def listen_finished(self) -> base.Listener:
        return FinishedListener(self.blocking_client, f"{self._prefix}:finished:")

    def register_worker(self, worker: WorkerInfo) -> None:
        self._workers.register_worker(worker)

    def deregister_worker(self, worker_id: str) -> None:
        self._workers.deregister_worker(worker_id)

    def workers(self) -> WorkersReading:
        return self._workers.read()

    def try_acquire_leadership(self, role: str, holder: str, seconds: float) -> bool:
        key = f"{self._prefix}:lead:{role}"
        with reachable():
            if self.client.set(key, holder, nx=True, px=int(seconds * 1000)):
                return True
            leads = self.client.get(key) == holder.encode()
            if leads:
                self.client.pexpire(key, int(seconds * 1000))
        return leads

    def increment_counters(self, counts: Mapping[str, Mapping[str, float]], *, seconds: float) -> None:
        with reachable(), self.client.pipeline(transaction=False) as pipeline:
            for name, fields in counts.items():
                key = self._counter(name)
                for field, amount in fields.items():
                    pipeline.hincrbyfloat(key, field, amount)
                pipeline.expire(key, int(seconds))
            pipeline.execute()

    def read_counters(self, names: Sequence[str]) -> list[dict[str, float]]:
        with reachable(), self.client.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.hgetall(self._counter(name))
            found: list[dict[bytes, bytes]] = pipeline.execute()
        return [{field.decode(): float(amount) for field, amount in fields.items()} for fields in found]

    @property
    def live(self) -> RedisLiveStore:
        return self._live

    @cached_property
    def breakers(self) -> RedisBreakers:
        return RedisBreakers(lambda: self.client, self._prefix)

    def ping(self) -> None:
        with reachable(), self.client.pipeline(transaction=False) as pipeline:
            pipeline.ping()
            pipeline.info("cluster")
            _, info = pipeline.execute()
        raise_if_cluster(info)

    def verify(self, queues: Sequence[str]) -> None:
        self.ping()
        for queue in queues:
            self.stats(queue)  # fails if this user may not run scripts, or not on these keys

    def eviction_policy(self) -> str:
        with reachable():
            # INFO instead of CONFIG, which managed servers often forbid.
            memory: Any = self.client.info("memory")
        return str(memory.get("maxmemory_policy", ""))

    def clear(self) -> None:
        keys = [key for queue in self._queues for key in self._keys(queue)]
        with reachable():
            if keys or self._counters:
                self.client.delete(*keys, *self._counters)
        self._workers.clear()
        self.breakers.reset()
        self._live.clear()
        self._epochs.clear()

    def close(self) -> None:
        with self._lock:
            for client in (self._client, self._blocking):
                if client is not None:
                    client.connection_pool.disconnect()
            self._client = self._blocking = None

    @property
    def client(self) -> Redis:
        """The client for commands that reply at once."""
        self._reset_after_fork()
        with self._lock:
            if self._client is None:
                self._client = make_client(timeout=conf.REDIS_TIMEOUT)
                learn_servers(self._client)
            return self._client

    @property
    def blocking_client(self) -> Redis:
        """The client for commands that block in the server."""
        self._reset_after_fork()
        with self._lock:
            if self._blocking is None:
                self._blocking = make_client(timeout=base.MAX_WAIT + WAIT_MARGIN)
            return self._blocking

    def _reset_after_fork(self) -> None:
        if self._pid != os.getpid():
            self._pid, self._lock = os.getpid(), threading.Lock()
            self._client = self._blocking = None

    def _keys(self, queue: str) -> list[str]:
        self._queues.add(queue)
        return _keys(self._prefix, queue)

    def _counter(self, name: str) -> str:
        key = f"{self._prefix}:count:{name}"
        self._counters.add(key)
        return key

    def _run(
        self, verb: str, queue: str, args: Sequence[Any], rest: Sequence[Any] = (), *, with_server: bool = False
    ) -> Any:
        """Run a script by its digest; send its text if the server does not have it.

        With `with_server` the run id of the server stands between `args` and `rest`. A connection is taken from
        the pool explicitly, so that this server runs the script.
        """
        keys, (sha, text) = self._keys(queue), script(verb)
        pool: Any = self.client.connection_pool
        try:
            connection = pool.get_connection()
            try:
                server = [server_of(connection)] if with_server else []
                arguments = [len(keys), *keys, int(conf.LEASE * 1000), self._prefix, *args, *server, *rest]
                try:
                    return _call(connection, "EVALSHA", sha, *arguments)
                except NoScriptError:
                    return _call(connection, "EVAL", text, *arguments)
            finally:
                pool.release(connection)
        except CLIENT_ERRORS as error:
            raise queue_error(error) from error


def _call(connection: Any, *command: Any) -> Any:
    # No health check: it might reconnect, to a server other than that of the arguments.
    connection.send_command(*command, check_health=False)
    return connection.read_response()


def _pause() -> int:
    """Return the milliseconds in which every live worker sends at least one heartbeat."""
    return int((conf.LEASE / base.BEATS_PER_LEASE + 1) * 1000)


@cache
def _keys(prefix: str, queue: str) -> list[str]:
    return [f"{{{prefix}:{queue}}}:{name}" for name in KEYS]


@cache
def script(verb: str) -> tuple[str, str]:
    """Return the digest (SHA-1, for EVALSHA) and the text of a verb's script: the common parts, then its file."""
    folder = Path(__file__).parent / "lua"
    text = "".join((folder / f"{part}.lua").read_text() for part in (*SCRIPT_PARTS, verb))
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(), text
