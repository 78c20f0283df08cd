"""Sentry: the tags, breadcrumbs and user that a handler sets stay within the scope of its attempt."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any
from uuid import UUID, uuid4

import pytest
import sentry_sdk
from pydantic import BaseModel
from sentry_sdk.envelope import Envelope
from sentry_sdk.integrations.logging import LoggingIntegration
from sentry_sdk.transport import Transport

from django_agentexec import task
from django_agentexec.models import Activity
from django_agentexec.queues import Claim
from django_agentexec.tasks import registry
from django_agentexec.worker.executor import Execution
from django_agentexec.worker.invoker import WorkerInvoker, isolated_error_tracker
from django_agentexec.worker.threads import ConnectionClosingExecutor

TENANTS = 5

Event = dict[str, Any]


class Tenant(BaseModel):
    number: int


class Kept(Transport):
    """Keeps the events instead of sending them."""

    def __init__(self, events: list[Event]) -> None:
        super().__init__()
        self._events = events

    def capture_envelope(self, envelope: Envelope) -> None:
        event = envelope.get_event()
        if event is not None:
            self._events.append(event)


@pytest.fixture
def events() -> Iterator[list[Event]]:
    events: list[Event] = []
    sentry_sdk.init(
        dsn="http://key@127.0.0.1:9/1",
        transport=Kept(events),
        default_integrations=False,
        auto_enabling_integrations=False,
        integrations=[LoggingIntegration()],
    )
    yield events
    sentry_sdk.get_global_scope().set_client(None)


class Rendezvous:
    """Lets all handlers meet between two of their steps, so that they certainly overlap."""

    def __init__(self) -> None:
        self._threads = threading.Barrier(TENANTS)
        self._tasks = asyncio.Barrier(TENANTS)

    def meet(self) -> None:
        self._threads.wait(10)

    async def ameet(self) -> None:
        await self._tasks.wait()


def tell(number: int) -> None:
    sentry_sdk.set_tag("tenant", str(number))
    sentry_sdk.set_user({"id": str(number)})
    logging.getLogger("shop").warning("tenant %s", number)


async def run_all(handler: Callable[..., Any]) -> None:
    """Run the handler for all tenants at once, as a worker does: each in a task that its main task has made."""
    definition = task("of_a_tenant", max_retries=0)(handler)
    threads = ConnectionClosingExecutor(TENANTS)
    try:
        runs = []
        for number in range(TENANTS):
            agent_id = uuid4()
            row = Activity(
                agent_id=agent_id, agent_type=definition.name, context={"number": number}, attempt=1, max_retries=0
            )
            execution = Execution(Claim(agent_id, 1, 0, "default", ""), row, unused, WorkerInvoker(threads))
            runs.append(asyncio.create_task(execution.run()))
        await asyncio.gather(*runs)
    finally:
        registry.unregister("of_a_tenant")  # several times in a test
        threads.shutdown()


def unused(operation: object) -> Future[Activity]:
    raise AssertionError("The handlers write nothing.")


def async_handler(rendezvous: Rendezvous) -> Callable[..., Any]:
    async def handler(agent_id: UUID, context: Tenant) -> None:
        await rendezvous.ameet()
        tell(context.number)
        await rendezvous.ameet()
        await asyncio.to_thread(logging.getLogger("shop").warning, "tenant %s", context.number)
        await rendezvous.ameet()
        raise RuntimeError(f"failed for {context.number}")

    return handler


def sync_handler(rendezvous: Rendezvous) -> Callable[..., Any]:
    def handler(agent_id: UUID, context: Tenant) -> None:
        rendezvous.meet()
        tell(context.number)
        rendezvous.meet()
        raise RuntimeError(f"failed for {context.number}")

    return handler


@pytest.mark.parametrize("kind", [async_handler, sync_handler])
async def test_an_event_has_the_tags_and_breadcrumbs_of_its_own_attempt(
    kind: Callable[[Rendezvous], Callable[..., Any]], events: list[Event]
) -> None:
    logging.getLogger("shop").warning("tenant before")

    await run_all(kind(Rendezvous()))

    assert len(events) == TENANTS
    for event in events:
        number = event["exception"]["values"][-1]["value"].split()[-1]
        crumbs = {crumb["message"] for crumb in event["breadcrumbs"]["values"] if "tenant" in crumb["message"]}
        assert event["tags"]["tenant"] == number
        assert event["user"] == {"id": number}
        assert crumbs == {f"tenant {number}"}


async def test_nothing_of_an_attempt_stays_behind(events: list[Event]) -> None:
    await run_all(async_handler(Rendezvous()))
    events.clear()

    sentry_sdk.capture_message("of the worker")

    assert "tenant" not in events[0].get("tags", {})
    assert not events[0].get("user")


def test_a_package_that_is_not_loaded_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "sentry_sdk")

    with isolated_error_tracker():
        pass

    assert "sentry_sdk" not in sys.modules
