"""The writes of calls: which of them are awaited, and where their errors appear."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any
from uuid import uuid4

import pytest

from django_agentexec import StaleAttempt
from django_agentexec.activity.transitions import Operation, Progress
from django_agentexec.calls.journal import Journal
from django_agentexec.calls.operations import BeginCall, FinishCall
from django_agentexec.models import Activity, CallKind
from django_agentexec.runners.openai.hooks import queued_log


class Attempt:
    """An attempt whose writes have these outcomes; None is a commit, `...` a write that does not end."""

    def __init__(self, *outcomes: Any) -> None:
        self.agent_id, self.fence, self.number = uuid4(), 1, 1
        self.operations: list[Operation] = []
        self._outcomes = list(outcomes)

    def write(self, operation: Operation) -> Future[Activity]:
        self.operations.append(operation)
        future: Future[Activity] = Future()
        match self._outcomes.pop(0):
            case None:
                future.set_result(Activity())
            case Exception() as error:
                future.set_exception(error)
        return future


def journal_of(attempt: Any) -> Journal:
    return Journal(attempt, [], [])


def begin(journal: Journal) -> Any:
    return journal.begin(journal.new_call("", CallKind.MODEL))


def queue_end(journal: Journal) -> None:
    journal.finish_before_next(journal.new_call("", CallKind.TOOL, call_id="call_1"))


async def test_the_end_of_a_tool_call_precedes_the_next_start() -> None:
    attempt = Attempt(None, None)
    journal = journal_of(attempt)

    queue_end(journal)
    await begin(journal)

    assert [type(operation) for operation in attempt.operations] == [FinishCall, BeginCall]


async def test_the_next_awaited_write_raises_the_error_of_a_queued_end_once() -> None:
    attempt = Attempt(ValueError("no such column"), None, None)
    journal = journal_of(attempt)

    queue_end(journal)
    with pytest.raises(ValueError, match="no such column"):
        await begin(journal)
    await begin(journal)


async def test_a_run_that_ends_waits_for_queued_ends_and_notes_a_refusal() -> None:
    journal = journal_of(Attempt(StaleAttempt("another worker owns it")))

    queue_end(journal)
    with pytest.raises(StaleAttempt):
        await journal.written()

    assert isinstance(journal.refusal, StaleAttempt)
    await journal.written()


async def test_a_queued_log_line_is_not_awaited() -> None:
    attempt: Any = Attempt(...)

    await queued_log(attempt)("Agent Clerk started.")

    (operation,) = attempt.operations
    assert isinstance(operation, Progress)
    assert operation.message == "Agent Clerk started."
