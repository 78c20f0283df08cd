"""Tasks of the test suite."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing.queues import SimpleQueue
from uuid import UUID

from django.contrib.auth.models import Group
from django.db import transaction
from pydantic import BaseModel

from django_agentexec import Attempt, activity, task, tool_key
from django_agentexec.current import current_traceparent

from . import (  # noqa: F401  # their tasks are found here
    approvals,
    budgets,
    charging,
    conversing,
    durable,
    limited,
    orchestration,
)
from .work import Work, note

PRELOAD_SDK = "AGENTEXEC_TEST_PRELOAD_SDK"
"""Set, pools load the agents SDK before they start processes: for tests with many processes that run agents."""

if os.environ.get(PRELOAD_SDK):
    import_module("agents.testing")


class Text(BaseModel):
    text: str = ""


class Keyed(BaseModel):
    key: str
    number: int = 0
    seconds: float = 0.0


class Report(BaseModel):
    title: str
    words: int


class Question(BaseModel):
    """What to ask the model server at `base_url`."""

    base_url: str
    text: str = "How is Acme?"


@task("ask", max_retries=1)
async def ask(agent_id: UUID, context: Question) -> str:
    # Here, not above: the other tests' pools need not load the SDK.
    from agents import Agent, OpenAIChatCompletionsModel, function_tool
    from openai import AsyncOpenAI

    from django_agentexec import OpenAIRunner
    from django_agentexec.models import Activity

    @function_tool
    def count_runs() -> int:
        """Count the runs in the database."""
        return Activity.objects.count()

    runner = OpenAIRunner(agent_id, max_turns_recovery=True)
    async with AsyncOpenAI(base_url=context.base_url, api_key="test", max_retries=0) as client:
        agent = Agent(
            "Clerk",
            instructions=runner.prompts.report_status,
            model=OpenAIChatCompletionsModel("scripted", client),
            tools=[runner.tools.report_status, count_runs],
        )
        result = await runner.run(agent, context.text)
    answer: str = result.final_output
    return answer


@task("shout")
def shout(agent_id: UUID, context: Text) -> str:
    return context.text.upper()


@task("report")
async def report(agent_id: UUID, context: Text) -> Report:
    await activity.aupdate(agent_id, "Counting", percentage=50)
    return Report(title=context.text, words=len(context.text.split()))


@task("fail", max_retries=0)
async def fail(agent_id: UUID, context: Text) -> None:
    raise RuntimeError(context.text)


@task("keyed", lock_key="key:{key}")
async def keyed(agent_id: UUID, context: Keyed) -> int:
    await asyncio.sleep(context.seconds)
    return context.number


@task("work")
async def work(agent_id: UUID, context: Work) -> str:
    await asyncio.to_thread(note, context.journal, "start", context.name, agent_id)
    await asyncio.sleep(context.seconds)
    await asyncio.to_thread(note, context.journal, "end", context.name, agent_id)
    return context.name


@task("locked_work", lock_key="key:{key}")
async def locked_work(agent_id: UUID, context: Work) -> str:
    result: str = await work(agent_id, context)
    return result


@task("shared_work", fair_key="{key}", concurrency=2, max_retries=0)
async def shared_work(agent_id: UUID, context: Work) -> str:
    result: str = await work(agent_id, context)
    return result


@task("sync_work")
def sync_work(agent_id: UUID, context: Work, attempt: Attempt) -> str:
    note(context.journal, "start", context.name, agent_id)
    waiting = threading.Event()
    deadline = time.monotonic() + context.seconds
    while time.monotonic() < deadline and not attempt.canceled:
        waiting.wait(0.01)
    note(context.journal, "canceled" if attempt.canceled else "end", context.name, agent_id)
    return context.name


@task("stubborn", lock_key="key:{key}")
def stubborn(agent_id: UUID, context: Work) -> None:
    note(context.journal, "start", context.name, agent_id)
    time.sleep(context.seconds)  # does not look whether it is canceled
    note(context.journal, "end", context.name, agent_id)


@task("die", max_retries=0)
async def die(agent_id: UUID, context: Work) -> None:
    await asyncio.to_thread(note, context.journal, "start", context.name, agent_id)
    os.kill(os.getpid(), signal.SIGKILL)


@task("exit_in_a_task", max_retries=0)
async def exit_in_a_task(agent_id: UUID, context: Work) -> None:
    async def leave() -> None:
        note(context.journal, "start", context.name, agent_id)
        sys.exit(0)

    await asyncio.create_task(leave())


@task("block")
async def block(agent_id: UUID, context: Work) -> None:
    note(context.journal, "start", context.name, agent_id)
    time.sleep(context.seconds)  # noqa: ASYNC251  # the misbehaviour under test


def square(number: int) -> int:
    return number * number


def put_square(results: SimpleQueue[int], number: int) -> None:
    results.put(square(number))


@task("square_elsewhere", max_retries=0)
def square_elsewhere(agent_id: UUID, context: Text) -> list[int]:
    """Compute in other processes, as `context.text` says."""
    if context.text == "pool":
        with multiprocessing.Pool(2) as pool:
            return pool.map(square, range(4))
    if context.text == "executor":
        with ProcessPoolExecutor(2) as executor:
            return list(executor.map(square, range(4)))
    results: SimpleQueue[int] = multiprocessing.SimpleQueue()
    process = multiprocessing.Process(target=put_square, args=(results, 3))
    process.start()
    squares = [results.get()]
    process.join()
    return squares


def sleep_long(journal: str, agent_id: UUID) -> None:
    note(journal, "start", "left", agent_id)
    time.sleep(60)


@task("leaves_a_process", max_retries=0)
def leaves_a_process(agent_id: UUID, context: Work) -> None:
    multiprocessing.Process(target=sleep_long, args=(context.journal, agent_id)).start()


@task("exits", max_retries=0)
async def exits(agent_id: UUID, context: Text) -> None:
    raise SystemExit(context.text)


class Unprintable(Exception):
    """An error whose own text is broken."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


@task("unprintable", max_retries=0)
async def unprintable(agent_id: UUID, context: Text) -> None:
    raise Unprintable


@task("reports_for_ever")
async def reports_for_ever(agent_id: UUID, context: Text) -> None:
    while True:
        await activity.aupdate(agent_id, "still here")


@task("own_transaction", max_retries=0)
def own_transaction(agent_id: UUID, context: Text) -> None:
    with transaction.atomic():
        Group.objects.create(name=context.text)
        activity.update(agent_id, "within")


@task("pay_and_die")
def pay_and_die(agent_id: UUID, context: Work, attempt: Attempt) -> int:
    """Pay once, and die at the first payment's side: before its record (`key="during"`) or after it."""
    is_first = not os.path.exists(context.name)

    def pay() -> int:
        note(context.journal, "paid", tool_key(), agent_id)
        if is_first and context.key == "during":
            _die_once(context.name)
        return 7

    receipt = attempt.once("pay", pay)
    if is_first and context.key == "after":
        _die_once(context.name)
    return receipt


@task("show_trace")
async def show_trace(agent_id: UUID, context: Text) -> str:
    return current_traceparent()


def _die_once(marker: str) -> None:
    with open(marker, "w"):
        os.kill(os.getpid(), signal.SIGKILL)
