"""Fixtures of the tests that run real pools."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.journal import Journal


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """A journal for this test's handlers."""
    return Journal(tmp_path)
