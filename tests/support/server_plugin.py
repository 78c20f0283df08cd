"""A pytest plugin that starts the suite's servers, from wheels, before pytest-django reads the settings.

Loaded by `-p tests.support.server_plugin` (see pyproject.toml). `AGENTEXEC_TEST_DB=postgresql` runs the database
tests on PostgreSQL instead of SQLite.
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

from tests.support.servers import postgresql_server, valkey_server

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background job ignores Ctrl-C, and so would every process that the tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)

FLUSH_TIMEOUT = 5.0  # seconds

_servers = ExitStack()
valkey = _servers.enter_context(valkey_server())
_folder = Path(tempfile.mkdtemp(prefix="agentexec-tests-"))
_servers.callback(shutil.rmtree, _folder, ignore_errors=True)

os.environ["AGENTEXEC_TEST_REDIS"] = valkey.url
os.environ["AGENTEXEC_TEST_SQLITE"] = str(_folder / "test.sqlite3")
if os.environ.get("AGENTEXEC_TEST_DB") == "postgresql":
    os.environ["AGENTEXEC_TEST_DATABASE"] = json.dumps(_servers.enter_context(postgresql_server()))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the servers, after what the last tests have left to be announced through them."""
    if "django_agentexec.live.publisher" in sys.modules:
        sys.modules["django_agentexec.live.publisher"].publisher.flush(FLUSH_TIMEOUT)
    _servers.close()
