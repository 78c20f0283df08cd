"""Connections of queues that a change of settings has replaced.

A test that changes settings has had several queue objects. The garbage collector finds those that were replaced with
open sockets, at any later time, and an open socket is a warning, which fails the test that runs at that moment.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from redis import Redis

from django_agentexec.queues.redis import queue


@contextmanager
def closed_when_collected() -> Iterator[None]:
    """Have each client that a queue makes in the block close its connections before it is collected."""
    make_client: Callable[..., Redis] = queue.make_client

    def make(**options: Any) -> Redis:
        client = make_client(**options)
        # Unlike `__del__`, which may run after that of the sockets, this runs before anything is collected.
        weakref.finalize(client, client.connection_pool.disconnect)
        return client

    with patch.object(queue, "make_client", make):
        yield
