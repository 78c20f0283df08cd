"""`ConnectionClosingExecutor`: code in threads leaves no database connection behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from agents import Agent, Tool, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call
from django.db import DatabaseError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import ConnectionHandler

from django_agentexec import OpenAIRunner
from django_agentexec.worker import threads
from django_agentexec.worker.threads import ConnectionClosingExecutor
from tests.support.activity_recorder import record_activity


@pytest.fixture
def connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, django_db_blocker: Any) -> Iterator[ConnectionHandler]:
    """Two databases in files: Django never closes those in memory. Both would stay open for an hour."""
    engine = {"ENGINE": "django.db.backends.sqlite3", "CONN_MAX_AGE": 3600}
    names = {"default": "one.sqlite3", "other": "two.sqlite3"}
    handler = ConnectionHandler({alias: {**engine, "NAME": tmp_path / name} for alias, name in names.items()})
    monkeypatch.setattr(threads, "connections", handler)
    with django_db_blocker.unblock():  # these are not the project's databases
        yield handler


@pytest.fixture
def executor() -> Iterator[ConnectionClosingExecutor]:
    with ConnectionClosingExecutor(max_workers=1) as executor:
        yield executor


class Query:
    """A synchronous piece of work with the database, which keeps the connection that it had."""

    def __init__(self, connections: ConnectionHandler, alias: str = "default") -> None:
        self._connections, self._alias = connections, alias
        self.used: list[BaseDatabaseWrapper] = []
        self.threads: set[int] = set()

    def __call__(self) -> int:
        connection = self._connections[self._alias]
        with connection.cursor() as cursor:
            cursor.execute("SELECT 42")
            (answer,) = cursor.fetchone()
        assert connection.connection is not None
        self.used.append(connection)
        self.threads.add(threading.get_ident())
        return int(answer)


def is_closed(connection: BaseDatabaseWrapper) -> bool:
    return connection.connection is None


def test_connections_of_all_databases_are_closed(
    connections: ConnectionHandler, executor: ConnectionClosingExecutor
) -> None:
    queries = [Query(connections), Query(connections, "other")]

    assert executor.submit(lambda: [query() for query in queries]).result() == [42, 42]

    assert all(is_closed(connection) for query in queries for connection in query.used)


def test_arguments_are_passed_on(executor: ConnectionClosingExecutor) -> None:
    assert executor.submit(int, "ff", base=16).result() == 255


def test_connections_are_closed_after_a_failure_too(
    connections: ConnectionHandler, executor: ConnectionClosingExecutor
) -> None:
    query = Query(connections)

    def work() -> None:
        query()
        raise LookupError("Nothing found.")

    with pytest.raises(LookupError, match="Nothing found"):
        executor.submit(work).result()

    assert is_closed(query.used[0])


def test_a_thread_opens_a_new_connection_for_its_next_call(
    connections: ConnectionHandler, executor: ConnectionClosingExecutor
) -> None:
    query = Query(connections)

    assert [executor.submit(query).result() for _ in range(2)] == [42, 42]

    assert len(query.threads) == 1


def test_connections_of_other_threads_stay_open(
    connections: ConnectionHandler, executor: ConnectionClosingExecutor
) -> None:
    own = Query(connections)
    own()

    executor.submit(Query(connections)).result()

    assert not is_closed(own.used[0])
    connections.close_all()


def test_a_connection_that_cannot_be_closed_harms_nobody(
    connections: ConnectionHandler, executor: ConnectionClosingExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    queries = [Query(connections), Query(connections, "other")]

    def work() -> int:
        for query in queries:
            query()
        broken = queries[0].used[0]
        close = broken.close

        def fail() -> None:
            close()
            raise DatabaseError("The server is gone.")

        broken.close = fail  # type: ignore[method-assign]  # a server that is gone
        return 42

    assert executor.submit(work).result() == 42

    assert is_closed(queries[1].used[0])
    assert "Could not close database connection 'default'" in caplog.text


async def test_sync_tools_of_every_agent_of_a_run_are_covered(
    connections: ConnectionHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_activity(monkeypatch)
    asyncio.get_running_loop().set_default_executor(ConnectionClosingExecutor())
    query = Query(connections)

    @function_tool
    def count() -> int:
        """Count."""
        return query()

    def counting(then: Any) -> ScriptedModel:
        return ScriptedModel([[function_call("count", {}, call_id=str(uuid4()))], [then]])

    helper = Agent("Helper", model=counting(assistant_message("Counted.")), tools=[count])
    expert = Agent("Expert", model=counting(assistant_message("Done.")), tools=[count])
    ask = function_call("helper", {"input": "Help"}, call_id="ask")
    transfer = function_call("transfer_to_expert", {}, call_id="transfer")
    model = ScriptedModel([[function_call("count", {}, call_id="first")], [ask], [transfer]])
    tools: list[Tool] = [count, helper.as_tool("helper", "Helps.")]

    await OpenAIRunner(uuid4()).run(Agent("Triage", model=model, tools=tools, handoffs=[expert]), "Hi")

    assert len(query.used) == 3
    assert threading.get_ident() not in query.threads
    assert all(is_closed(connection) for connection in query.used)
