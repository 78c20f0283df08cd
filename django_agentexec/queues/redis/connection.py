"""Redis connections from a URL, from the project's CACHES (django-redis or Django's `RedisCache`), or to the embedded
server.

The settings (URL, TLS, Sentinel, credentials) come from the project. The connection pools are separate from those of
the cache, because queue traffic needs other limits: no automatic retry of commands, and reads that may block.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from django.conf import settings
from django.core.cache import InvalidCacheBackendError, caches
from django.core.cache.backends.redis import RedisCache
from django.core.exceptions import ImproperlyConfigured
from redis import ConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    ClusterCrossSlotError,
    ClusterError,
    NoPermissionError,
    RedisError,
    ResponseError,
    TimeoutError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from ...conf import conf, dotted_path
from ...exceptions import QueueMisconfigured, QueueUnavailable

ALIAS = "agentexec"
FALLBACK_ALIAS = "default"
# redis-py 8 caps a pool at 100 connections by default; each thread that uses the queue may hold one.
MAX_CONNECTIONS = 10_000
SCRIPT_REFUSED = "The user executing the script can't"  # the message of Redis 7 instead of NOPERM
CLIENT_ERRORS = (RedisError, OSError)
"""What the client raises if the server cannot be reached or refuses a command."""
CHECK_TIMEOUT = 1.0  # seconds for which a system check waits for the server
IS_A_CLUSTER = (
    "The queue's Redis is a node of a Redis Cluster, which is not supported: a node holds only some of the keys. "
    "Use a server with cluster mode disabled, with replicas and Sentinel for high availability."
)


def cache_alias() -> str:
    """Return the alias of CACHES that names the queue's Redis: `agentexec`, else `default`."""
    return ALIAS if ALIAS in settings.CACHES else FALLBACK_ALIAS


def server_setting() -> str:
    """Return the setting that names the queue's Redis."""
    if conf.EMBEDDED:
        return "AGENTEXEC['EMBEDDED_DIR']"
    return "AGENTEXEC['REDIS_URL']" if conf.REDIS_URL else f"CACHES[{cache_alias()!r}]"


def make_client(*, timeout: float) -> Redis:
    """Return a new client with its own pool; `timeout` limits the seconds until a reply.

    The client does not repeat a failed command: only the caller can decide whether a repetition is safe.
    Raises `ImproperlyConfigured` if the settings name no Redis.
    """
    if conf.EMBEDDED:
        from ...embedded import ensure_server

        options: dict[str, Any] = {"path": ensure_server()}
        from redis import UnixDomainSocketConnection

        pool = ConnectionPool(connection_class=UnixDomainSocketConnection, **options)
        client: Redis = Redis(connection_pool=pool)
    else:
        client = _configured_client()
    pool = client.connection_pool
    pool.max_connections = MAX_CONNECTIONS
    pool.connection_kwargs.update(
        socket_timeout=timeout,
        socket_connect_timeout=conf.REDIS_TIMEOUT,
        retry=Retry(NoBackoff(), 0),
        retry_on_error=[],
        decode_responses=False,
        client_name="agentexec",
    )
    # A queue that a change of the settings has replaced is collected in any order: its sockets may come first, and an
    # open socket is a warning. Unlike the client's `__del__`, this runs before anything is collected.
    weakref.finalize(client, pool.disconnect).atexit = False
    return client


def _configured_client() -> Redis:
    return _client_from_url(conf.REDIS_URL) if conf.REDIS_URL else _client_from_caches()


def _client_from_url(url: str) -> Redis:
    try:
        return Redis.from_url(url)
    except ValueError as error:  # its message does not contain the URL or the password
        raise ImproperlyConfigured(
            f"AGENTEXEC['REDIS_URL'] is not a Redis URL such as 'redis://localhost:6379/0': {error}"
        ) from error


def _client_from_caches() -> Redis:
    alias = cache_alias()
    try:
        cache = caches[alias]
        if isinstance(cache, RedisCache):
            return _client_from_django(cache)
        client = cache.client  # type: ignore[attr-defined]  # django-redis has no stubs
        factory, url = client.connection_factory, client._server[0]
    except (InvalidCacheBackendError, AttributeError) as error:
        raise ImproperlyConfigured(
            f"CACHES[{alias!r}] is neither a django-redis cache nor Django's RedisCache. Set "
            "AGENTEXEC['REDIS_URL'], add CACHES['agentexec'] with BACKEND 'django_redis.cache.RedisCache' and a "
            "LOCATION, or set AGENTEXEC['EMBEDDED'] = True for development."
        ) from error
    # `connect` would share the pool of the cache; `get_connection_pool` creates a separate pool.
    pool = factory.get_connection_pool(factory.make_connection_params(url))
    redis: Redis = factory.redis_client_cls(connection_pool=pool, **factory.redis_client_cls_kwargs)
    return redis


def _client_from_django(cache: RedisCache) -> Redis:
    """Return a client for the first server of Django's backend, to which it writes."""
    client: Any = cache._cache
    pool = client._pool_class.from_url(client._servers[0], **client._pool_options)
    redis: Redis = client._client(connection_pool=pool)
    return redis


def cache_backend_error() -> str:
    """Return the reason why the settings name no Redis for the queue, or "" if they do. Opens no connection."""
    if conf.EMBEDDED or not dotted_path(conf.QUEUE_BACKEND).endswith(".RedisQueue"):
        return ""
    try:
        _configured_client()
    except ImproperlyConfigured as error:
        return str(error)
    return ""


def cluster_error() -> str:
    """Return an error message if the configured server is a node of a cluster, else "" (also if it does not reply).

    Waits for the server for at most two seconds, since every management command runs the system checks.
    """
    if conf.EMBEDDED or not dotted_path(conf.QUEUE_BACKEND).endswith(".RedisQueue"):
        return ""
    client = make_client(timeout=CHECK_TIMEOUT)
    client.connection_pool.connection_kwargs["socket_connect_timeout"] = CHECK_TIMEOUT
    try:
        with client, reachable():
            raise_if_cluster(client.info("cluster"))
    except QueueMisconfigured as error:
        return str(error) if str(error) == IS_A_CLUSTER else ""
    except QueueUnavailable:
        return ""  # `migrate` and other commands must work while Redis is unavailable
    return ""


def raise_if_cluster(info: Any) -> None:
    """Raise `QueueMisconfigured` if `info` is the INFO reply of a node of a cluster."""
    if int(info.get("cluster_enabled", 0)):
        raise QueueMisconfigured(IS_A_CLUSTER)


def learn_servers(client: Redis) -> None:
    """Make each new connection of this client store the run id of its server process.

    A connection ends with the server process, so scripts need not check at each call whether the server was restarted.
    """
    options: dict[str, Any] = client.connection_pool.connection_kwargs
    options["redis_connect_func"] = partial(_connect, options.get("redis_connect_func"))


def server_of(connection: Any) -> str:
    """Return the run id of the server of a connection; "" if it is unknown."""
    return getattr(connection, "agentexec_server", "")


def _connect(prepare: Callable[[Any], None] | None, connection: Any) -> None:
    connection.agentexec_server = ""
    if prepare is None:
        connection.on_connect()
    else:
        prepare(connection)
    connection.send_command("INFO", "server", check_health=False)
    try:
        found = re.search(rb"run_id:(\w+)", connection.read_response(disable_decoding=True))
    except ResponseError:
        return  # the scripts check it themselves, and their error names the missing permission
    connection.agentexec_server = found[1].decode() if found else ""


@contextmanager
def reachable() -> Iterator[None]:
    """Convert the client's errors as `queue_error` does."""
    try:
        yield
    except CLIENT_ERRORS as error:
        raise queue_error(error) from error


def queue_error(error: Exception) -> QueueUnavailable | QueueMisconfigured:
    """Return the exception for one of `CLIENT_ERRORS`: `QueueMisconfigured` if a retry cannot help.

    A server may reject commands temporarily: it is out of memory, loads or cannot save its data, has become a
    replica, or its passwords are being changed. Running activities must continue in all these cases.
    """
    if isinstance(error, (RedisConnectionError, TimeoutError, OSError)):
        return QueueUnavailable(f"The queue's Redis does not answer ({error}).")
    if isinstance(error, (AskError, ClusterError, ClusterCrossSlotError)):
        return QueueMisconfigured(IS_A_CLUSTER)
    if isinstance(error, NoPermissionError) or str(error).startswith(SCRIPT_REFUSED):
        return QueueMisconfigured(
            f"The queue's Redis refuses a command ({error}). Its user needs the permissions listed on the page "
            "'Guarantees' of the documentation, including INFO and EVALSHA."
        )
    return QueueUnavailable(f"The queue's Redis refuses a command ({error}).")
