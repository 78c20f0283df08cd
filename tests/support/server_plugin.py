"""A pytest plugin with the suite's servers, from wheels. The fixtures of tests/conftest.py start them, once per run.

Loaded by `-p tests.support.server_plugin` (see pyproject.toml), before pytest-django reads the settings, which name the
servers' addresses. `AGENTEXEC_TEST_DB=postgresql` runs the database tests on PostgreSQL instead of SQLite.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.servers import Valkey, postgresql_server

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background job ignores Ctrl-C, and so would every process that the tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)

FLUSH_TIMEOUT = 5.0  # seconds

_servers = ExitStack()
_folder = Path(tempfile.mkdtemp(prefix="agentexec-tests-"))
_servers.callback(shutil.rmtree, _folder, ignore_errors=True)
_valkey = Valkey(_folder)

os.environ["AGENTEXEC_TEST_REDIS"] = _valkey.url
os.environ["AGENTEXEC_TEST_SQLITE"] = str(_folder / "test.sqlite3")
if os.environ.get("AGENTEXEC_TEST_DB") == "postgresql":
    # The address follows when the server is started.
    os.environ["AGENTEXEC_TEST_DATABASE"] = json.dumps({"ENGINE": "django.db.backends.postgresql", "NAME": "postgres"})


def start_valkey() -> Valkey:
    """Start Valkey until the end of the run."""
    _servers.callback(_valkey.kill)
    _valkey.start()
    return _valkey


def start_postgresql() -> dict[str, str]:
    """Start PostgreSQL until the end of the run, and return its database settings."""
    return _servers.enter_context(postgresql_server())


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the servers, after what the last tests have left to be announced through them."""
    if "django_agentexec.live.publisher" in sys.modules:
        sys.modules["django_agentexec.live.publisher"].publisher.flush(FLUSH_TIMEOUT)
    _servers.close()
