"""Fixtures of the tests of the REST API."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.rest_api import outside_task


@pytest.fixture
def read_title() -> Iterator[None]:
    """The task `read_title`, which callers of the API may enqueue."""
    with outside_task():
        yield
