"""A pytest plugin with fixtures for tests of tasks; pytest loads it in every project that installs the package.

It imports neither Django nor models when it is loaded, because pytest loads it before the settings are configured.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .queues import Queue


@pytest.fixture
def agentexec_queue() -> Iterator[Queue]:
    """Use the in-memory queue during the test, and return it."""
    from .queues import get_queue  # after the settings are configured
    from .testing import memory_queue

    with memory_queue():
        yield get_queue()


@pytest.fixture
def drain(agentexec_queue: Queue) -> Callable[..., int]:
    """Return `django_agentexec.testing.drain`, with the in-memory queue in use. The test needs the database."""
    from .testing import drain

    return drain


@pytest.fixture
def adrain(agentexec_queue: Queue) -> Callable[..., Awaitable[int]]:
    """Return `django_agentexec.testing.adrain`, with the in-memory queue in use. The test needs the database."""
    from .testing import adrain

    return adrain
