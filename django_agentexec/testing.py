"""Helpers for tests of tasks: without Redis and worker processes, inside the transaction of a `TestCase`.

    from django_agentexec.testing import assert_enqueued, drain, memory_queue

    class ResearchTests(TestCase):
        def test_it_reports(self):
            with memory_queue():
                handle = research_company.enqueue(ResearchContext(company="Acme"))
                drain()  # in an async test: await adrain()
                assert get_result(handle).title == "Acme"

`scripted_agent`, `scripted_model` and `tool_call` need the OpenAI Agents SDK and are loaded on first use.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any
from uuid import UUID

from asgiref.sync import async_to_sync, sync_to_async
from django.test import override_settings
from pydantic import BaseModel

from .activity.store import apply_one
from .activity.transitions import Operation, OwnedOperation, Start
from .concurrency.publication import publish
from .concurrency.table import table as rules
from .conf import conf, user_settings
from .exceptions import ActivityNotFound, HeldBack, InvalidContext, InvalidTransition
from .models import Activity, Status
from .pipelines.inline import InlineAttempt
from .pool.reconciler import reconcile
from .queues import Ack, Claim, Limit, Outcome, get_queue
from .tasks import AnyTask, Attempt, registry
from .threads import CallExecutor
from .worker.executor import Execution

if TYPE_CHECKING:
    from .runners.openai.testing import scripted_agent, scripted_model, tool_call

__all__ = [
    "aassert_enqueued",
    "adrain",
    "assert_enqueued",
    "drain",
    "make_attempt",
    "memory_queue",
    "scripted_agent",
    "scripted_model",
    "tool_call",
]

WORKER = "testing"
MAX_LISTED = 10  # activities in the message of a failed assertion
_NEEDING_SDK = ("scripted_agent", "scripted_model", "tool_call")


def __getattr__(name: str) -> Any:
    if name not in _NEEDING_SDK:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(".runners.openai.testing", __package__), name)


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
    """Return an attempt to pass to a handler. It discards progress and runs children where they are spawned."""
    return InlineAttempt(agent_id, number, fence, metadata, enqueued_by)


def drain(*queues: str) -> int:
    """Run queued and due activities, including those that they enqueue, in this process.

    Runs in the caller's thread and database transaction and includes enqueues that are not committed. Retries run
    immediately, without backoff. The exception of a handler is stored in its row. Returns the number of attempts.
    Raises `RuntimeError` in an async test; use `await adrain()` there.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return async_to_sync(adrain)(*queues)
    raise RuntimeError("drain() cannot run inside an event loop. In an async test, use: await adrain()")


async def adrain(*queues: str) -> int:
    """Async version of `drain`.

    Sync handlers and all queries run in the thread of Django's `sync_to_async`, that is in the transaction of an
    async method of a `TestCase`. With pytest-asyncio, the test runs in another thread: use `transaction=True`.
    """
    return await _drain(queues or tuple(conf.QUEUES))


def assert_enqueued(task: str | AnyTask, **context: Any) -> Activity:
    """Return the latest activity of `task` whose context has these values; fail with an `AssertionError` otherwise.

    `context` names some or all fields of the task's context: `assert_enqueued(research_company, company="Acme")`.
    Activities of any status count, also children. Raises `UnknownTask`, and `TypeError` for a field that the context
    does not have.
    """
    definition = registry.get(task) if isinstance(task, str) else task
    unknown = sorted(set(context) - set(definition.context_type.model_fields))
    if unknown:
        raise TypeError(
            f"{definition.context_type.__name__}, the context of {definition.name!r}, has no {unknown[0]!r}."
        )
    rows = list(Activity.objects.order_by("-agent_id"))
    for row in rows:
        if row.agent_type == definition.name and _has_values(definition, row, context):
            return row
    raise AssertionError(f"{_call_text(definition.name, context)} was not enqueued. {_listed(rows)}")


async def aassert_enqueued(task: str | AnyTask, **context: Any) -> Activity:
    """Async version of `assert_enqueued`."""
    return await sync_to_async(assert_enqueued)(task, **context)


def _has_values(definition: AnyTask, row: Activity, expected: Mapping[str, Any]) -> bool:
    try:
        context: BaseModel = definition.load_context(json.dumps(row.context))
    except InvalidContext:
        return False
    return all(getattr(context, name) == value for name, value in expected.items())


def _call_text(name: str, context: Mapping[str, Any]) -> str:
    return f"{name}({', '.join(f'{field}={value!r:.100}' for field, value in context.items())})"


def _listed(rows: list[Activity]) -> str:
    """Return a sentence on the (latest first) activities, for a failed assertion."""
    if not rows:
        return "Nothing was enqueued."
    lines = [f"- {_call_text(row.agent_type, row.context)}" for row in reversed(rows[:MAX_LISTED])]
    more = len(rows) - len(lines)
    heading = f"The latest {MAX_LISTED} of {len(rows)} activities are:" if more else "These activities exist:"
    return "\n".join([heading, *lines])


async def _drain(queues: tuple[str, ...]) -> int:
    caller = await sync_to_async(threading.get_ident)()
    loop = asyncio.get_running_loop()
    if getattr(loop, "_default_executor", None) is None:  # like in a worker, for `asyncio.to_thread` and sync tools
        loop.set_default_executor(CallExecutor(thread_name_prefix="agentexec-drain"))
    attempts = 0
    while claim := await sync_to_async(_next_claim)(queues):
        attempts += 1
        await _run(claim, caller)
    return attempts


def _next_claim(queues: tuple[str, ...]) -> Claim | None:
    # In a TestCase nothing is committed, so nothing was pushed to the queue.
    reconcile(settling=timedelta())
    publish(queues)
    rules.load()
    for name in queues:
        claimed = get_queue().ack_and_claim(name, WORKER, limit=1).claimed
        if claimed:
            return claimed[0]
    return None


async def _run(claim: Claim, caller: int) -> None:
    loop = asyncio.get_running_loop()
    writes: list[Future[Activity]] = []

    def write(operation: Operation) -> Future[Activity]:
        if threading.get_ident() == caller:  # a sync handler, which blocks other threads of `sync_to_async`
            return _written(operation)
        writes.append(asyncio.run_coroutine_threadsafe(sync_to_async(apply_one)(operation), loop))
        return writes[-1]

    start = Start(
        agent_id=claim.agent_id,
        fence=claim.fence,
        worker=WORKER,
        crashes=claim.crashes,
        limit_keys=claim.limit_keys,
    )
    try:
        activity = await sync_to_async(apply_one)(start)
    except HeldBack as reason:
        await sync_to_async(_acknowledge)(claim, Outcome.HOLD, tuple(map(Limit, reason.keys)))
        return
    except (InvalidTransition, ActivityNotFound):  # canceled, finished or deleted meanwhile
        await sync_to_async(_acknowledge)(claim, Outcome.DONE)
        return
    outcome = await Execution(claim, activity, write, _InlineInvoker()).run()
    # What the handler has not awaited is written before its end, as by a worker.
    await asyncio.gather(*map(asyncio.wrap_future, writes), return_exceptions=True)
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


def _acknowledge(claim: Claim, outcome: Outcome, limits: tuple[Limit, ...] = ()) -> None:
    get_queue().ack_and_claim(claim.queue, WORKER, [Ack(claim, outcome, limits=limits)])


class _InlineInvoker:
    """An invoker that calls handlers where the transaction of the test is visible."""

    @asynccontextmanager
    async def around_async(self) -> AsyncIterator[None]:
        yield

    def call_sync(self, function: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        return asyncio.ensure_future(sync_to_async(function)(*arguments))
