"""Forks: new activities that replay the calls of another activity up to a point, and make the rest again."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from decimal import Decimal
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db import transaction

from ..blocking import blocking
from ..exceptions import ActivityNotFound, InvalidOption, InvalidTransition
from ..ids import uuid7
from ..models import Activity, AgentCall, Approval, ApprovalScope, ApprovalStatus, CallKind, CallState
from ..parsing import parse_id
from ..registry import registry
from ..translation import gettext as _
from ..validation import validate_id
from .store import database

_ENDED = (CallState.DONE, CallState.IN_DOUBT, CallState.REJECTED)
_DECIDED = (ApprovalStatus.APPROVED, ApprovalStatus.REJECTED, ApprovalStatus.EXPIRED)


@blocking
def fork(agent_id: UUID, *, before: UUID) -> UUID:
    """Enqueue a new activity of the same task and context that keeps the calls before the call `before`; return its id.

    The new activity replays what had ended when that call started, without paying for it, and makes that call and all
    later ones again. Decisions about kept calls are kept, too; a decision for all calls of a run is not. Children and
    steps of a pipeline run again.

    Raises `ActivityNotFound`, `InvalidOption` for a call of another activity, `InvalidTransition` for an activity that
    its creator drives, `UnknownTask`, and `InvalidContext` if the task does not accept the stored context any more.
    """
    using, agent_id = database(), validate_id(agent_id)
    original = Activity.objects.using(using).filter(agent_id=agent_id).defer("result", "traceback").first()
    if original is None:
        raise ActivityNotFound(agent_id)
    point = _call(agent_id, before, using)
    if point is None:
        raise InvalidOption(
            _("Activity %(agent_id)s has no call %(before)s: give the id of one of its calls.")
            % {"agent_id": agent_id, "before": before}
        )
    if not original.queue:
        raise InvalidTransition(
            _("Activity %(agent_id)s was never queued; its creator drives it.") % {"agent_id": agent_id},
            "never queued, driven by its creator",
        )
    task = registry.get(original.agent_type)
    with transaction.atomic(using=using):
        run = task.enqueue(
            task.parse_context(original.context),
            metadata=original.metadata,
            priority=original.priority,
            queue=original.queue,
        )
        kept = list(_kept(original, point, using))
        places = {(each.path, each.call_id) for each in kept if each.kind == CallKind.TOOL}
        decisions = list(_decisions(original, point.set_aside, places, using))
        rows: list[AgentCall | Approval] = [*kept, *decisions]
        for row in rows:
            row.id, row.activity_id, row.set_aside = uuid7(), run.agent_id, 0
        AgentCall.objects.using(using).bulk_create(kept)
        Approval.objects.using(using).bulk_create(decisions)
    return run.agent_id


def _call(agent_id: UUID, call_id: UUID | str, using: str) -> AgentCall | None:
    try:
        id = call_id if isinstance(call_id, UUID) else parse_id(call_id)
    except (ValueError, TypeError):
        return None  # the id of no call
    return AgentCall.objects.using(using).of(agent_id).filter(id=id).only("set_aside", "started_at").first()


async def afork(agent_id: UUID, *, before: UUID) -> UUID:
    """Async version of `fork`."""
    return await sync_to_async(fork)(agent_id, before=before)


def _kept(original: Activity, point: AgentCall, using: str) -> Iterator[AgentCall]:
    """Yield the calls that had ended when `point` started, and the runs that had started, as rows of the fork."""
    calls = AgentCall.objects.using(using).of(original.agent_id).filter(set_aside=point.set_aside)
    for call in calls.exclude(id=point.pk).defer("request"):
        has_ended = call.state in _ENDED and call.finished_at is not None and call.finished_at <= point.started_at
        has_output = call.kind != CallKind.MODEL or call.output is not None
        if has_ended and has_output:
            pass
        elif call.kind == CallKind.AGENT and call.started_at <= point.started_at:
            call.state, call.output, call.error, call.finished_at = CallState.STARTED, None, "", None
        else:
            continue
        # Paid by the original, and not counted twice.
        call.input_tokens = call.cached_tokens = call.output_tokens = call.reasoning_tokens = 0
        call.cost = None if call.kind == CallKind.AGENT else Decimal()
        call.request, call.has_changed, call.fence, call.attempt = None, False, 0, 0
        yield call


def _decisions(
    original: Activity, set_aside: int, places: Collection[tuple[str, str]], using: str
) -> Iterator[Approval]:
    rows = Approval.objects.using(using).filter(activity_id=original.agent_id, set_aside=set_aside)
    for approval in rows.filter(status__in=_DECIDED).order_by("id"):
        if (approval.path, approval.call_id) in places:
            approval.scope = ApprovalScope.ONCE
            yield approval
