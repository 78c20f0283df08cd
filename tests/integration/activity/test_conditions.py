"""Suspension for a condition: no slot, no lease, no try, until its time or a call of `resume`."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
from django.utils import timezone

from django_agentexec import Attempt, InvalidOption, InvalidTransition, activity, task
from django_agentexec.activity.resumption import next_due, resume, resume_due
from django_agentexec.activity.store import apply_one
from django_agentexec.activity.suspension import Condition, Resume, Suspend, Suspended, earliest
from django_agentexec.activity.transitions import GiveUp
from django_agentexec.models import Activity, Approval, Status, WaitingFor
from django_agentexec.monitoring import waiting_by_reason
from django_agentexec.pool.builtin_services import MAX_RESUMPTION_PAUSE, Resumption
from django_agentexec.pool.reconciler import reconcile
from django_agentexec.queues import Ack, Claim, Outcome, get_queue
from django_agentexec.testing import drain, make_attempt
from tests.support.activity_rows import claim, claimed_ids, messages, row, start
from tests.support.management_commands import call
from tests.support.servers import Valkey
from tests.testapp.agents import Keyed, Text, keyed, shout

pytestmark = pytest.mark.django_db(transaction=True)

HOUR = timedelta(hours=1)
calls: list[int] = []


@task("waits_once")
def waits_once(agent_id: UUID, context: Text, attempt: Attempt) -> str:
    """Wait for a budget in the first pass."""
    calls.append(attempt.number)
    if len(calls) == 1:
        raise attempt.suspend_until(WaitingFor.BUDGET, message="Budget Acme is used up.")
    return "done"


@task("swallows_a_wait")
def swallows(agent_id: UUID, context: Text, attempt: Attempt) -> str:
    """Catch the wait of the first pass."""
    calls.append(attempt.number)
    if len(calls) == 1:
        try:
            raise attempt.suspend_until(WaitingFor.LIMIT)
        except BaseException:
            return "wrong"
    return "done"


@pytest.fixture(autouse=True)
def no_calls() -> None:
    calls.clear()


@pytest.fixture(autouse=True)
def own_queue(clean_valkey: Valkey) -> None:
    """Each test has an empty queue."""


def suspended(until: timedelta | None = HOUR, reason: WaitingFor = WaitingFor.LIMIT, **options: object) -> Claim:
    """Return the claim of a new activity that its worker has suspended and acknowledged."""
    shout.enqueue(Text(), **options)  # type: ignore[arg-type]
    (claimed,) = claim()
    start(claimed.agent_id, claimed.fence)
    condition = Condition(reason, timezone.now() + until if until else None)
    apply_one(Suspend(agent_id=claimed.agent_id, fence=claimed.fence, awaited_ids=[], condition=condition))
    get_queue().ack_and_claim("default", "w", [Ack(claimed, Outcome.DONE)])
    return claimed


def let_pass(agent_id: UUID) -> None:
    """Let the condition of an activity end now."""
    Activity.objects.filter(pk=agent_id).update(run_after=timezone.now())


def test_a_handler_waits_and_runs_again_after_resume() -> None:
    agent_id = waits_once.enqueue(Text()).agent_id

    assert drain() == 1
    waiting = row(agent_id)
    assert (waiting.status, waiting.waiting_for, waiting.is_suspended) == (Status.RUNNING, "budget", True)
    assert waiting.latest_log_message == "Budget Acme is used up."
    assert drain() == 0

    assert resume([agent_id]) == 1
    assert drain() == 1

    ended = row(agent_id)
    assert (ended.status, ended.result, ended.waiting_for, ended.run_after) == (Status.COMPLETE, "done", "", None)
    assert calls == [1, 1]  # the same attempt
    assert (ended.attempt, ended.retries, ended.crashes) == (1, 0, 0)
    assert "The wait is over." in messages(agent_id)


def test_a_caught_wait_suspends_all_the_same() -> None:
    agent_id = swallows.enqueue(Text()).agent_id

    drain()

    assert row(agent_id).waiting_for == "limit"
    assert row(agent_id).latest_log_message == "Waiting for the limit of a provider."


def test_only_due_activities_are_resumed() -> None:
    due, later = suspended(), suspended(2 * HOUR)
    let_pass(due.agent_id)

    assert resume_due() == 1

    assert claimed_ids() == [due.agent_id]
    assert row(later.agent_id).is_suspended
    assert next_due() == row(later.agent_id).run_after


def test_an_activity_without_a_time_waits_for_a_call_of_resume() -> None:
    waiting = suspended(None, WaitingFor.BUDGET)

    assert (resume_due(), next_due()) == (0, None)
    assert row(waiting.agent_id).is_suspended

    assert resume([waiting.agent_id]) == 1
    assert claimed_ids() == [waiting.agent_id]


def test_an_early_resume_does_not_leave_the_due_time_behind() -> None:
    waiting = suspended()

    resume([waiting.agent_id])

    assert row(waiting.agent_id).run_after is None
    assert claimed_ids() == [waiting.agent_id]  # at once, not in an hour


def test_a_second_resume_has_no_effect() -> None:
    waiting = suspended()

    assert resume([waiting.agent_id]) == 1
    assert resume([waiting.agent_id]) == 0
    assert claimed_ids() == [waiting.agent_id]


def test_slot_and_lock_are_free_while_it_waits() -> None:
    keyed.enqueue(Keyed(key="acme"))
    (claimed,) = claim()
    start(claimed.agent_id, claimed.fence)
    other = keyed.enqueue(Keyed(key="acme")).agent_id
    assert claimed_ids() == []

    condition = Condition(WaitingFor.LIMIT, timezone.now() + HOUR)
    apply_one(Suspend(agent_id=claimed.agent_id, fence=claimed.fence, awaited_ids=[], condition=condition))
    get_queue().ack_and_claim("default", "w", [Ack(claimed, Outcome.DONE)])

    assert claimed_ids() == [other]


def test_a_condition_that_has_ended_meanwhile_queues_the_activity_at_once() -> None:
    shout.enqueue(Text())
    (claimed,) = claim()
    start(claimed.agent_id, claimed.fence)

    past = Condition(WaitingFor.LIMIT, timezone.now() - HOUR)
    written = apply_one(Suspend(agent_id=claimed.agent_id, fence=claimed.fence, awaited_ids=[], condition=past))

    assert (written.status, written.waiting_for, written.run_after) == (Status.QUEUED, "", None)


def test_a_decision_is_awaited_before_a_condition() -> None:
    agent_id = shout.enqueue(Text()).agent_id
    fence = start(agent_id).fence
    request = Approval(activity_id=agent_id, call_id="1", agent="Clerk", tool="send_letter")
    condition = Condition(WaitingFor.LIMIT, timezone.now() - HOUR)

    written = apply_one(
        Suspend(
            agent_id=agent_id, fence=fence, awaited_ids=[], requests=[request], new_requests=[request],
            condition=condition,
        )
    )  # fmt: skip

    assert (written.waiting_for, written.is_suspended) == ("approval", True)
    assert resume([agent_id]) == 0
    assert resume_due() == 0


def test_the_condition_that_ends_first_applies() -> None:
    now = timezone.now()
    never, soon, late = (
        Condition(WaitingFor.BUDGET),
        Condition(WaitingFor.LIMIT, now + HOUR),
        Condition(WaitingFor.LIMIT, now + 2 * HOUR),
    )

    assert earliest([never, late, soon]) == soon
    assert earliest([never]) == never
    assert earliest([]) is None


def test_a_cancel_ends_the_wait_and_a_retry_starts_at_once() -> None:
    waiting = suspended()

    activity.cancel(waiting.agent_id)
    let_pass(waiting.agent_id)
    assert resume_due() == 0
    assert row(waiting.agent_id).status == Status.CANCELED

    activity.retry(waiting.agent_id)
    assert claimed_ids() == [waiting.agent_id]
    assert row(waiting.agent_id).run_after is None


def test_a_waiting_activity_survives_the_loss_of_the_queue() -> None:
    waiting = suspended()

    get_queue().clear()
    assert reconcile(settling=timedelta()) == 0  # it is in no queue, and is not put into one
    let_pass(waiting.agent_id)
    resume_due()

    assert claimed_ids() == [waiting.agent_id]


def test_a_resumption_whose_push_was_lost_is_repaired() -> None:
    waiting = suspended()
    resume([waiting.agent_id])

    get_queue().clear()

    assert reconcile(settling=timedelta()) == 1
    assert claimed_ids() == [waiting.agent_id]


def test_crashes_before_the_wait_do_not_count_after_it() -> None:
    waiting = suspended()
    Activity.objects.filter(pk=waiting.agent_id).update(crashes=2)
    resume([waiting.agent_id])
    (claimed,) = claim()

    written = apply_one(GiveUp(agent_id=claimed.agent_id, fence=claimed.fence, worker="w", crashes=3, expired_leases=0))

    assert written.status == Status.RUNNING


def test_it_is_neither_pruned_nor_counted_as_queued() -> None:
    waiting = suspended()

    assert sum(activity.prune(timedelta(0))) == 0
    assert row(waiting.agent_id).is_suspended
    assert waiting_by_reason() == {"limit": 1}
    assert activity.count_active() == 1


def test_the_previous_release_leaves_it_alone() -> None:
    """It stores its own id, so workers of the previous release regard it as suspended, and their repairs skip it."""
    waiting = suspended()
    known = row(waiting.agent_id)

    assert known.blocking_child_id == waiting.agent_id
    assert known.awaited_ids == []
    with pytest.raises(InvalidTransition):
        start(waiting.agent_id, fence=waiting.fence + 1)


def test_the_service_resumes_what_is_due_and_sleeps_until_the_next() -> None:
    service = Resumption("pool")
    assert service.step() == MAX_RESUMPTION_PAUSE

    due, later = suspended(), suspended(timedelta(milliseconds=700))
    let_pass(due.agent_id)

    assert 0.1 <= service.step() <= 0.7
    assert claimed_ids() == [due.agent_id]
    assert row(later.agent_id).is_suspended


def test_the_terminal_shows_the_reason() -> None:
    waiting = suspended(None, WaitingFor.BUDGET)

    assert "budget" in call("agentexec", "show", str(waiting.agent_id)).out


def test_a_reason_must_be_a_condition_and_a_time_aware() -> None:
    attempt = make_attempt()

    with pytest.raises(InvalidOption, match=r"reason=.*WaitingFor\.BUDGET or WaitingFor\.LIMIT"):
        attempt.suspend_until(WaitingFor.CHILDREN)
    with pytest.raises(InvalidOption, match=r"until=.*no time zone"):
        attempt.suspend_until(WaitingFor.LIMIT, timezone.now().replace(tzinfo=None))
    assert attempt.suspension is None
    assert isinstance(attempt.suspend_until(WaitingFor.LIMIT), Suspended)


def test_a_resume_of_an_activity_that_is_not_suspended_is_refused() -> None:
    agent_id = shout.enqueue(Text()).agent_id

    assert resume([agent_id]) == 0
    with pytest.raises(InvalidTransition):
        apply_one(Resume(agent_id=agent_id))
