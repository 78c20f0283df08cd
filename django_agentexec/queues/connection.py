"""Redis connections, made from the project's CACHES (through django-redis) or from the embedded server.

The settings (URL, TLS, Sentinel, credentials) are the project's; the pools are our own, because queue
traffic needs other limits than a cache: no silent repetition of commands, and reads that may block.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.core.cache import InvalidCacheBackendError, caches
from django.core.exceptions import ImproperlyConfigured
from redis import ConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, TimeoutError
from redis.retry import Retry

from ..conf import conf
from ..exceptions import QueueUnavailable

ALIAS = "agentexec"
FALLBACK_ALIAS = "default"
# redis-py 8 caps a pool at 100 connections by default; each thread that uses the queue may hold one.
MAX_CONNECTIONS = 10_000


def cache_alias() -> str:
    """Return the alias of CACHES that names the queue's Redis: `agentexec`, else `default`."""
    return ALIAS if ALIAS in settings.CACHES else FALLBACK_ALIAS


def make_client(*, timeout: float) -> Redis:
    """Return a new client with its own pool, whose replies are waited for `timeout` seconds.

    A command that fails is not repeated by the client: the caller decides, since only it knows whether
    a repetition is safe. Raises `ImproperlyConfigured` if CACHES names no Redis.
    """
    if conf.EMBEDDED:
        from ..embedded import ensure_server

        options: dict[str, Any] = {"path": ensure_server()}
        from redis import UnixDomainSocketConnection

        pool = ConnectionPool(connection_class=UnixDomainSocketConnection, **options)
        client: Redis = Redis(connection_pool=pool)
    else:
        client = _client_from_caches()
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
    return client


def _client_from_caches() -> Redis:
    alias = cache_alias()
    try:
        client = caches[alias].client  # type: ignore[attr-defined]  # django-redis has no stubs
        factory, url = client.connection_factory, client._server[0]
    except (InvalidCacheBackendError, AttributeError) as error:
        raise ImproperlyConfigured(
            f"CACHES[{alias!r}] is not a django-redis cache. Add CACHES['agentexec'] with BACKEND "
            "'django_redis.cache.RedisCache' and a LOCATION, or set AGENTEXEC['EMBEDDED'] = True for development."
        ) from error
    # `connect` would share the cache's own pool; `get_connection_pool` makes one for us.
    pool = factory.get_connection_pool(factory.make_connection_params(url))
    redis: Redis = factory.redis_client_cls(connection_pool=pool, **factory.redis_client_cls_kwargs)
    return redis


def cache_backend_error() -> str:
    """Say why CACHES offers no Redis to the queue, or return "" if all is well. Connects to nothing."""
    if conf.EMBEDDED or not conf.QUEUE_BACKEND.endswith(".RedisQueue"):
        return ""
    try:
        _client_from_caches()
    except ImproperlyConfigured as error:
        return str(error)
    return ""


@contextmanager
def reachable() -> Iterator[None]:
    """Turn the client's errors into `QueueUnavailable`: no answer, or a refusal.

    A server refuses for a time: it is out of memory, loads or cannot save its data, has become a replica, or
    its passwords are being changed. What runs meanwhile must go on, whatever the reason.
    """
    try:
        yield
    except (RedisConnectionError, TimeoutError, OSError) as error:
        raise QueueUnavailable(f"The queue's Redis does not answer ({error}).") from error
    except RedisError as error:
        raise QueueUnavailable(f"The queue's Redis refuses a command ({error}).") from error
