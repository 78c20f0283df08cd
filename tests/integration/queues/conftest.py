"""Queue backends of the tests in this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.queue_backends import Backend, MemoryBackend, RedisBackend, StoppedRedisBackend, stopped_clock


@pytest.fixture(params=[MemoryBackend, RedisBackend])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Each backend. To run the conformance suites on another backend, add its `Backend` here."""
    backend: Backend = request.param()
    yield backend
    backend.queue.clear()
    backend.queue.close()


@pytest.fixture(params=[MemoryBackend, StoppedRedisBackend])
def clocked(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Each backend, with a clock that stands still."""
    with stopped_clock():
        backend: Backend = request.param()
        yield backend
        backend.queue.clear()
        backend.queue.close()


@pytest.fixture
def redis_backend() -> Iterator[RedisBackend]:
    """The Redis backend."""
    backend = RedisBackend()
    yield backend
    backend.queue.clear()
    backend.queue.close()
