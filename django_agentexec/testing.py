"""What users need to test their own tasks: no Redis, no worker process, and inside a `TestCase`'s transaction.

from django_agentexec.testing import drain, memory_queue

class ResearchTests(TestCase):
    def test_it_reports(self):
        with memory_queue():
            handle = research_company.enqueue(ResearchContext(company="Acme"))
            drain()  # in an async test: await adrain()
            assert get_result(handle).title == "Acme"
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

from asgiref.sync import async_to_sync, sync_to_async
from django.test import override_settings

from .activity.store import apply_one
from .activity.transitions import Operation, OwnedOperation, Start
from .conf import conf, user_settings
from .exceptions import ActivityNotFound, InvalidTransition
from .models import Activity, Status
from .pipelines.inline import InlineAttempt
from .pool.reconciler import reconcile
from .queues import Ack, Claim, Outcome, get_queue
from .tasks import Attempt
from .threads import CallExecutor
from .worker.executor import Execution

WORKER = "testing"


@contextmanager
def memory_queue() -> Iterator[None]:
    """Use the in-memory queue inside the block."""
    values = {**user_settings(), "QUEUE_BACKEND": "django_agentexec.queues.memory.MemoryQueue"}
    with override_settings(AGENTEXEC=values):
        yield


def make_attempt(
    agent_id: UUID | None = None,
    *,
    number: int = 1,
    fence: int = 1,
    metadata: Mapping[str, Any] | None = None,
    enqueued_by: str | None = None,
) -> Attempt:
    """Return an attempt to call a handler with: its progress goes nowhere, its children run where it spawns them."""
    return InlineAttempt(agent_id, number, fence, metadata, enqueued_by)


def drain(*queues: str) -> int:
    """Run what is queued and due, also what that enqueues, in this process; return how many attempts ran.

    Runs in the caller's thread and database transaction, whether its enqueues were committed or not.
    Retries are run at once, without their backoff. An exception of a handler ends up on its row. In an async test,
    `await adrain()` instead; this raises `RuntimeError` there.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return async_to_sync(adrain)(*queues)
    raise RuntimeError("drain() cannot run inside an event loop; in an async test, use: await adrain()")


async def adrain(*queues: str) -> int:
    """Async version of `drain`, for async tests.

    Sync handlers, and every query, run in the thread of Django's `sync_to_async`, so inside an async method of a
    `TestCase` in its transaction. With pytest-asyncio, that thread is not the test's: use `transaction=True`.
    """
    return await _drain(queues or tuple(conf.QUEUES))


async def _drain(queues: tuple[str, ...]) -> int:
    caller = await sync_to_async(threading.get_ident)()
    loop = asyncio.get_running_loop()
    if getattr(loop, "_default_executor", None) is None:  # as a worker's, for `asyncio.to_thread` and sync tools
        loop.set_default_executor(CallExecutor(thread_name_prefix="agentexec-drain"))
    attempts = 0
    while claim := await sync_to_async(_next_claim)(queues):
        attempts += 1
        await _run(claim, caller)
    return attempts


def _next_claim(queues: tuple[str, ...]) -> Claim | None:
    # In a TestCase nothing is ever committed, so nothing was pushed.
    reconcile(settling=timedelta())
    for name in queues:
        claimed = get_queue().ack_and_claim(name, WORKER, limit=1).claimed
        if claimed:
            return claimed[0]
    return None


async def _run(claim: Claim, caller: int) -> None:
    loop = asyncio.get_running_loop()

    def write(operation: Operation) -> Future[Activity]:
        if threading.get_ident() == caller:  # a sync handler: whoever else wrote would have to wait for it
            return _written(operation)
        return asyncio.run_coroutine_threadsafe(sync_to_async(apply_one)(operation), loop)

    start = Start(agent_id=claim.agent_id, fence=claim.fence, worker=WORKER, crashes=claim.crashes)
    try:
        activity = await sync_to_async(apply_one)(start)
    except (InvalidTransition, ActivityNotFound):  # canceled, finished or deleted meanwhile
        await sync_to_async(_acknowledge)(claim, Outcome.DONE)
        return
    outcome = await Execution(claim, activity, write, _InlineInvoker()).run()
    await sync_to_async(_finish)(claim, outcome)


def _written(operation: Operation) -> Future[Activity]:
    future: Future[Activity] = Future()
    try:
        future.set_result(apply_one(operation))
    except (InvalidTransition, ActivityNotFound) as refusal:
        future.set_exception(refusal)
    return future


def _finish(claim: Claim, outcome: OwnedOperation | None) -> None:
    retried = outcome is not None and apply_one(outcome).status == Status.QUEUED
    _acknowledge(claim, Outcome.RETRY if retried else Outcome.DONE)


def _acknowledge(claim: Claim, outcome: Outcome) -> None:
    get_queue().ack_and_claim(claim.queue, WORKER, [Ack(claim, outcome)])


class _InlineInvoker:
    """Calls handlers where the test's transaction is visible."""

    @asynccontextmanager
    async def around_async(self) -> AsyncIterator[None]:
        yield

    def call_sync(self, function: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        return asyncio.ensure_future(sync_to_async(function)(*arguments))
