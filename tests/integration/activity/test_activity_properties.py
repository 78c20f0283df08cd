"""Whatever workers and people do to an activity in whatever order, its row lives by the rules of the state machine.

Several "processes" hold claims of two activities, outdated ones among them, and hand in batches of operations as
the committer does. A model of a few lines says what each must lead to; after every batch row and log are compared
with it. What is refused must leave no trace.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from django_agentexec import InvalidTransition, StaleAttempt, activity
from django_agentexec.activity.rerun import Rerun, Retry
from django_agentexec.activity.store import apply
from django_agentexec.activity.suspension import Resume, Suspend
from django_agentexec.activity.transitions import (
    AddUsage,
    Cancel,
    Complete,
    Fail,
    GiveUp,
    Operation,
    Progress,
    Release,
    Start,
)
from django_agentexec.models import Activity, ActivityLog
from tests.support.activity_rows import row

pytestmark = pytest.mark.django_db

PROCESSES = 3
MAX_CRASHES = 3  # as the setting's default
MAX_RETRIES = [2, 0]  # of the two activities
SILENT, LINE = "accepted without a line", "accepted with a line"


@dataclass
class Life:
    """What an activity's row must say."""

    agent_id: UUID
    child: UUID
    max_retries: int
    status: str = "queued"
    is_suspended: bool = False
    goes_on: bool = False
    fence: int = 0
    attempt: int = 0
    retries: int = 0
    percentage: int = 0
    crashes: int = 0
    discounted_crashes: int = 0
    tokens: int = 0
    child_is_active: bool = True
    lines: list[tuple[str, int]] = field(default_factory=lambda: [("queued", 0)])

    @property
    def is_active(self) -> bool:
        return self.status in ("queued", "running")

    def expect(self, operation: Operation) -> object:
        """Live through `operation`: return what it must lead to, an exception's type included."""
        outcome: object = getattr(self, f"_{type(operation).__name__.lower()}")(operation)
        if outcome is LINE:
            self.lines.append((self.status, self.percentage))
        return outcome

    def _owner(self, fence: int | None) -> object:
        if fence is not None and not (self.status == "running" and self.fence == fence and not self.is_suspended):
            return StaleAttempt
        return None if self.status == "running" else InvalidTransition

    def _start(self, operation: Start) -> object:
        if operation.fence < self.fence:
            return StaleAttempt
        if not self.is_active or self.is_suspended:
            return InvalidTransition
        if self.status == "running" and self.fence == operation.fence:
            return SILENT
        if self.status == "queued" and not self.goes_on:
            self.attempt += 1
        self.percentage = self.percentage if self.goes_on else 0
        self.status, self.fence, self.goes_on = "running", operation.fence, False
        self.crashes = max(self.crashes, operation.crashes)
        return LINE

    def _giveup(self, operation: GiveUp) -> object:
        most = self.crashes + (self.status == "running")  # a start takes one process down at most
        outcome = self._start(operation)
        if outcome in (SILENT, LINE) and min(operation.crashes, most) >= MAX_CRASHES + self.discounted_crashes:
            self.status, outcome = "error", LINE
        return outcome

    def _progress(self, operation: Progress) -> object:
        if refusal := self._owner(operation.fence):
            return refusal
        self.percentage = self.percentage if operation.percentage is None else operation.percentage
        return LINE

    def _addusage(self, operation: AddUsage) -> object:
        if operation.fence is not None and operation.fence != self.fence:
            return StaleAttempt
        self.tokens += operation.usage["tokens"]
        return SILENT

    def _complete(self, operation: Complete) -> object:
        if self.status == "complete" and operation.fence is not None and operation.fence == self.fence:
            return SILENT
        if refusal := self._owner(operation.fence):
            return refusal
        self.status, self.percentage, self.is_suspended = "complete", 100, False
        return LINE

    def _fail(self, operation: Fail) -> object:
        if refusal := self._owner(operation.fence):
            return refusal
        if operation.retry_delay is None or self.retries == self.max_retries:
            self.status = "error"
        else:
            self.status, self.retries = "queued", self.retries + 1
        return LINE

    def _release(self, operation: Release) -> object:
        if refusal := self._owner(operation.fence):
            return refusal
        self.status, self.attempt = "queued", max(0, self.attempt - 1)
        return LINE

    def _cancel(self, operation: Cancel) -> object:
        if not self.is_active:
            return InvalidTransition
        self.status, self.is_suspended = "canceled", False
        return LINE

    def _retry(self, operation: Retry) -> object:
        if self.status not in (
            ("error", "canceled", "complete") if type(operation) is Rerun else ("error", "canceled")
        ):
            return InvalidTransition
        self.status, self.percentage, self.goes_on = "queued", 0, False
        self.retries = self.crashes = self.discounted_crashes = 0
        return LINE

    _rerun = _retry

    def _suspend(self, operation: Suspend) -> object:
        if self.is_suspended and self.fence == operation.fence:
            return SILENT
        if refusal := self._owner(operation.fence):
            return refusal
        if self.child_is_active:
            self.is_suspended = True
            return LINE
        return self._queued_again()

    def _resume(self, operation: Resume) -> object:
        if not self.is_suspended:
            return InvalidTransition
        return SILENT if self.child_is_active else self._queued_again()

    def _queued_again(self) -> object:
        self.status, self.is_suspended, self.goes_on = "queued", False, True
        self.discounted_crashes, self.crashes = self.crashes + 1, 0
        return LINE


Make = Callable[[Life, int, st.DataObject], Operation]

BY_WORKERS: dict[str, Make] = {
    "start": lambda life, fence, data: Start(
        agent_id=life.agent_id, fence=fence, worker="w", crashes=data.draw(st.integers(0, 2))
    ),
    "give up": lambda life, fence, data: GiveUp(agent_id=life.agent_id, fence=fence, worker="w", crashes=MAX_CRASHES),
    "progress": lambda life, fence, data: Progress(
        agent_id=life.agent_id, fence=fence, message="on it", percentage=data.draw(st.sampled_from([None, 0, 30, 100]))
    ),
    "usage": lambda life, fence, data: AddUsage(agent_id=life.agent_id, fence=fence, usage={"tokens": 7}),
    "complete": lambda life, fence, data: Complete(agent_id=life.agent_id, fence=fence, result={"fence": fence}),
    "fail": lambda life, fence, data: Fail(
        agent_id=life.agent_id, fence=fence, error="broken", retry_delay=data.draw(st.sampled_from([None, 0.0, 60.0]))
    ),
    "release": lambda life, fence, data: Release(agent_id=life.agent_id, fence=fence),
    "park": lambda life, fence, data: Suspend(agent_id=life.agent_id, fence=fence, awaited_ids=[life.child]),
}
BY_PEOPLE: dict[str, Make] = {
    "cancel": lambda life, fence, data: Cancel(agent_id=life.agent_id),
    "retry": lambda life, fence, data: Retry(agent_id=life.agent_id),
    "repeat": lambda life, fence, data: Rerun(agent_id=life.agent_id),
    "wake": lambda life, fence, data: Resume(agent_id=life.agent_id),
}


class Processes(RuleBasedStateMachine):
    """Two activities, and who holds which claim of them."""

    @initialize()
    def begin(self) -> None:
        self.lives = [self._create(max_retries) for max_retries in MAX_RETRIES]
        self.last_fence = 0
        # The claim of each activity that each process has got last; most of them are outdated.
        self.claims = [[0] * len(self.lives) for _ in range(PROCESSES)]

    @staticmethod
    def _create(max_retries: int) -> Life:
        agent_id = activity.create("anything")
        Activity.objects.filter(pk=agent_id).update(queue="default", max_retries=max_retries)
        ActivityLog.objects.filter(activity_id=agent_id).update(message="queued")
        child = Activity(agent_type="child", queue="default", parent_id=agent_id, spawn_key="child")
        child.save(force_insert=True)
        return Life(agent_id, child.agent_id, max_retries)

    @rule(process=st.integers(0, PROCESSES - 1), which=st.integers(0, 1))
    def claim_and_start(self, process: int, which: int) -> None:
        self.last_fence += 1
        self.claims[process][which] = self.last_fence
        life = self.lives[which]
        self._apply([(life, Start(agent_id=life.agent_id, fence=self.last_fence, worker="w", crashes=life.crashes))])

    @rule(data=st.data(), size=st.integers(1, 4), twice=st.booleans())
    def write(self, data: st.DataObject, size: int, twice: bool) -> None:
        """Hand in a batch of any processes' operations; perhaps once more, as after a commit without an answer."""
        batch = []
        for _ in range(size):
            which = data.draw(st.integers(0, 1))
            make = data.draw(st.sampled_from([*BY_WORKERS.values(), *BY_PEOPLE.values()]))
            process = data.draw(st.integers(0, PROCESSES - 1))
            batch.append((self.lives[which], make(self.lives[which], self.claims[process][which], data)))
        self._apply(batch)
        if twice:
            self._apply(batch)

    @rule(data=st.data(), which=st.integers(0, 1))
    def write_as_the_owner(self, data: st.DataObject, which: int) -> None:
        life = self.lives[which]
        self._apply([(life, data.draw(st.sampled_from([*BY_WORKERS.values()]))(life, life.fence, data))])

    @rule(which=st.integers(0, 1), is_active=st.booleans())
    def let_the_child_end(self, which: int, is_active: bool) -> None:
        life = self.lives[which]
        life.child_is_active = is_active
        Activity.objects.filter(pk=life.child).update(status="running" if is_active else "complete")

    def _apply(self, batch: list[tuple[Life, Operation]]) -> None:
        applied = apply([operation for _, operation in batch])
        for (life, operation), outcome in zip(batch, applied, strict=True):
            expected = life.expect(operation)
            is_accepted = expected in (SILENT, LINE)
            found: Any = Activity if isinstance(outcome, Activity) else type(outcome)
            assert found is (Activity if is_accepted else expected), f"{operation}: {outcome!r}, not {expected}"

    @invariant()
    def rows_and_logs_are_as_expected(self) -> None:
        for life in getattr(self, "lives", []):
            found = row(life.agent_id)
            assert (found.status, found.is_suspended) == (life.status, life.is_suspended)
            assert (found.fence, found.attempt, found.retries) == (life.fence, life.attempt, life.retries)
            assert (found.crashes, found.discounted_crashes) == (life.crashes, life.discounted_crashes)
            assert found.percentage == life.percentage
            assert found.usage.get("tokens", 0) == life.tokens
            assert (found.finished_at is not None) == (not life.is_active)
            assert (found.result is not None) == (life.status == "complete")
            lines = list(ActivityLog.objects.filter(activity_id=life.agent_id).values_list("status", "percentage"))
            assert lines == life.lines


def test_rows_keep_their_invariants_for_every_writer() -> None:
    run_state_machine_as_test(
        Processes,
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
