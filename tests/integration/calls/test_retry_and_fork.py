"""Retries that keep or repeat recorded calls, and forks from a call."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from unittest.mock import patch
from uuid import uuid4

import pytest
from agents.testing import ScriptedModel
from django.utils import timezone

from django_agentexec import ActivityNotFound, InvalidOption, InvalidTransition, Run, activity
from django_agentexec.models import (
    Activity,
    AgentCall,
    Approval,
    ApprovalQuerySet,
    ApprovalScope,
    ApprovalStatus,
    CallKind,
    CallState,
    Status,
)
from django_agentexec.testing import drain
from tests.support.recorded_calls import DONE, call, run, say, two_look_ups

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("durable_tasks")]


Retry = Callable[[Activity], object]


def retry_with_handle(row: Activity) -> None:
    Run.of(row).retry(fresh=True)


def retry_with_queryset(row: Activity) -> None:
    assert Activity.objects.filter(pk=row.pk).retry(fresh=True).done == [row.agent_id]


def current(row: Activity) -> list[AgentCall]:
    return list(AgentCall.objects.of(row.agent_id).current())


def test_a_retry_replays_the_calls() -> None:
    scripted = two_look_ups()
    row = run(scripted, fails=1)
    assert row.status == Status.ERROR

    activity.retry(row.agent_id)
    drain()

    row.refresh_from_db()
    assert (row.status, row.result) == (Status.COMPLETE, "Both are fine.")
    assert len(scripted.calls) == 3
    assert DONE["Acme"] == 1


@pytest.mark.parametrize(
    "retry", [lambda row: activity.retry(row.agent_id, fresh=True), retry_with_handle, retry_with_queryset]
)
def test_a_fresh_retry_makes_the_calls_again_and_keeps_the_old_ones_in_the_trace(retry: Retry) -> None:
    scripted = ScriptedModel(
        [[call("look_up", "1", name="Acme")], say("Fine."), [call("look_up", "1", name="Acme")], say("Good.")]
    )
    row = run(scripted, fails=1)
    before = {each.id for each in current(row)}

    retry(row)
    drain()

    row.refresh_from_db()
    assert (row.status, row.result) == (Status.COMPLETE, "Good.")
    assert (len(scripted.calls), DONE["Acme"]) == (4, 2)
    assert before == {each.id for each in AgentCall.objects.of(row.agent_id).exclude(set_aside=0)}
    assert len(current(row)) == len(before)


def test_calls_can_be_set_aside_twice_under_the_same_claim() -> None:
    row = run(two_look_ups(), fails=1)
    for _ in range(2):
        place = {"activity_id": row.agent_id, "kind": CallKind.MODEL, "path": "", "ordinal": 7}
        AgentCall.objects.create(**place)
        activity.retry(row.agent_id, fresh=True)
        activity.cancel(row.agent_id)
    assert current(row) == []


def test_a_fresh_retry_voids_open_questions() -> None:
    row = run(two_look_ups(), fails=1)
    Approval.objects.create(activity=row, tool="send", call_id="9")
    activity.retry(row.agent_id, fresh=True)
    assert not Approval.objects.of(row.agent_id).exists()
    assert Approval.objects.get().status == ApprovalStatus.VOID


def test_many_retries_are_fresh_on_request() -> None:
    row = run(two_look_ups(), fails=1)
    assert activity.retry_many(Activity.objects.all(), fresh=True).done == [row.agent_id]
    assert current(row) == []


def test_from_scratch_makes_the_calls_again() -> None:
    row = run(two_look_ups())
    activity.retry(row.agent_id, from_scratch=True)
    assert current(row) == []


def test_a_fork_replays_what_had_ended_before_the_call() -> None:
    scripted = ScriptedModel(
        [
            [call("look_up", "1", name="Acme")],
            [call("look_up", "2", name="Beta")],
            say("Both are fine."),
            [call("look_up", "3", name="Gamma")],
            say("Changed."),
        ]
    )
    row = run(scripted, organization_id="org-1")
    calls = current(row)
    second = next(each for each in calls if each.kind == CallKind.MODEL and each.ordinal == 1)

    forked = activity.fork(row.agent_id, before=second.id)
    drain()

    fork = Activity.objects.get(pk=forked)
    assert (fork.status, fork.result) == (Status.COMPLETE, "Changed.")
    assert fork.metadata == {"organization_id": "org-1"}
    assert (DONE["Acme"], DONE["Beta"], DONE["Gamma"]) == (1, 1, 1)
    assert len(scripted.calls) == 5
    kept = [each for each in current(fork) if each.attempt == 0 and each.kind != CallKind.AGENT]
    assert [(each.kind, each.ordinal, each.input_tokens) for each in kept] == [("model", 0, 0), ("tool", 0, 0)]
    assert fork.usage["requests"] == 2
    row.refresh_from_db()
    assert row.result == "Both are fine."
    assert AgentCall.objects.billed().filter(activity=fork).count() == 2  # the kept call is paid by the original
    assert len(current(row)) == len(calls)
    for each in AgentCall.objects.all():  # the kept calls are answered, and are not billed here
        each.input_tokens, each.state = 1, CallState.DONE
        each.save()
        assert each.is_billed == AgentCall.objects.billed().filter(pk=each.pk).exists()


def test_a_fork_keeps_single_decisions_and_no_permission_for_later_calls() -> None:
    row = run(two_look_ups())
    tools = [each for each in current(row) if each.kind == CallKind.TOOL]
    for tool in tools:
        Approval.objects.create(
            activity=row, tool="look_up", call_id=tool.call_id, path=tool.path,
            status=ApprovalStatus.APPROVED, scope=ApprovalScope.RUN,
        )  # fmt: skip
    forked = activity.fork(row.agent_id, before=tools[1].id)
    assert [(each.call_id, each.scope) for each in Approval.objects.of(forked)] == [("1", ApprovalScope.ONCE)]


def test_a_fork_repeats_a_tool_that_ended_later() -> None:
    row = run(two_look_ups())
    first, second = (each for each in current(row) if each.kind == CallKind.TOOL)
    AgentCall.objects.filter(pk=first.pk).update(finished_at=timezone.now() + timedelta(hours=1))
    forked = activity.fork(row.agent_id, before=second.id)
    assert not AgentCall.objects.of(forked).filter(kind=CallKind.TOOL).exists()


def test_an_impossible_fork_is_refused() -> None:
    row = run(two_look_ups())
    with pytest.raises(InvalidOption, match="has no call"):
        activity.fork(row.agent_id, before=uuid4())
    with pytest.raises(InvalidOption, match="has no call first: give the id"):
        activity.fork(row.agent_id, before="first")  # type: ignore[arg-type]
    with pytest.raises(ActivityNotFound):
        activity.fork(uuid4(), before=uuid4())
    driven = activity.create("by hand")
    own = AgentCall.objects.create(activity_id=driven, kind=CallKind.MODEL)
    with pytest.raises(InvalidTransition):
        activity.fork(driven, before=own.id)
    assert Activity.objects.count() == 2


def test_nothing_is_left_of_a_fork_that_fails() -> None:
    scripted = two_look_ups()
    row = run(scripted)

    with (
        patch.object(ApprovalQuerySet, "bulk_create", side_effect=RuntimeError("no")),
        pytest.raises(RuntimeError, match="no"),
    ):
        activity.fork(row.agent_id, before=current(row)[1].id)
    assert Activity.objects.count() == 1
