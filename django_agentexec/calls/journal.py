"""`Journal`: the recorded calls of an activity, as one attempt reads and writes them.

In a later attempt the handler runs from its beginning, and every call with a recorded end is answered from here. Calls
are found by their place (see `paths`), never by their content: prompts may contain the time, and code may have changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID
from weakref import WeakKeyDictionary

from asgiref.sync import sync_to_async
from django.utils import timezone

from ..activity.store import database
from ..activity.transitions import Operation
from ..budgets.charges import Charge, OverBudget
from ..current import OwningAttempt
from ..exceptions import InvalidTransition
from ..models import Activity, AgentCall, Approval, ApprovalScope, ApprovalStatus, CallKind, CallState
from ..validation import one_line, storable_text
from .active_calls import ActiveCalls
from .active_runs import ActiveRuns
from .halting import Halts
from .operations import BeginCall, FinishCall, SetAside, make_storable
from .paths import is_run_of, short_call_id

if TYPE_CHECKING:
    from .position import Position, Scope

Place = tuple[str, str, int, str]
MAX_ERROR = 2_000  # characters
CANCELED = "Canceled before its end."
_JOURNAL = "journal"  # its name among the values of the attempt


class Journal:
    """The calls of an activity, loaded once per attempt."""

    def __init__(self, attempt: OwningAttempt, calls: Sequence[AgentCall], approvals: Sequence[Approval]) -> None:
        self.attempt = attempt
        self.calls: dict[Place, AgentCall] = {call.place: call for call in calls}
        self.approvals = list(approvals)
        self.is_resumed = bool(calls)
        """Whether an earlier attempt, or a process that has ended, has made calls."""
        self.scopes: WeakKeyDictionary[OwningAttempt, Scope] = WeakKeyDictionary()
        self.paused: dict[str, Position] = {}
        """Runs that wait for a decision, by the path of their scope."""
        self.requests: dict[tuple[str, str], Approval] = {}
        """New rows for the decisions that runs of this attempt wait for, by path and call id."""
        self.active_runs = ActiveRuns()
        self.active_calls = ActiveCalls()
        self.refusal: InvalidTransition | None = None
        """Why a write was refused: the attempt has lost its activity, or the activity has ended."""
        self.halts = Halts()
        self._charges: dict[UUID, Charge] = {}
        self._stored = {call.pk for call in calls}
        self._queued: list[Future[Activity]] = []
        """Ends of calls for whose commit the next awaited write waits."""

    def find(self, path: str, kind: CallKind, ordinal: int = 0, call_id: str = "") -> AgentCall | None:
        """Return the call at a place, or None."""
        return self.calls.get((path, str(kind), ordinal, short_call_id(call_id)))

    def new_call(self, path: str, kind: CallKind, ordinal: int = 0, call_id: str = "", **values: Any) -> AgentCall:
        """Return a new row for a call, which is not written yet."""
        call = AgentCall(
            activity_id=self.attempt.agent_id,
            path=path,
            kind=kind,
            ordinal=ordinal,
            call_id=short_call_id(call_id),
            attempt=self.attempt.number,
            fence=self.attempt.fence,
            **values,
        )
        self.calls[call.place] = call
        return call

    def is_foreign(self, call: AgentCall) -> bool:
        """Return whether another process made the call, for an earlier attempt or before a crash or a wait."""
        return call.fence != self.attempt.fence

    def runs_of(self, scope: str) -> list[AgentCall]:
        """Return the recorded runs that began directly in a scope, in the order of their start."""
        return [call for call in self.calls.values() if call.kind == CallKind.AGENT and is_run_of(scope, call.path)]

    async def begin(self, call: AgentCall, charge: Charge | None = None) -> None:
        """Write the start of a call, and wait for the commit.

        Raises `StaleAttempt` if the attempt lost its activity, and `OverBudget`, with nothing written, if a budget does
        not cover the `charge`.
        """
        is_new = call.pk not in self._stored
        if charge is not None:
            self._charges[call.pk] = charge
        try:
            await self._write(self._beginning([call], charge))
        except OverBudget:
            self._charges.pop(call.pk, None)
            if is_new:
                self._stored.discard(call.pk)
                self.calls.pop(call.place, None)
            raise
        except asyncio.CancelledError as error:
            self.fail_soon(call, error)  # its start may be committed all the same
            raise
        self.calls[call.place] = call  # again, if it was refused before

    def begin_soon(self, call: AgentCall) -> None:
        """Queue the start of a call; later writes of this attempt are committed after it."""
        self.attempt.write(replace(self._beginning([call]), may_wait=True))

    async def finish(
        self,
        call: AgentCall,
        *,
        usage: Mapping[str, int] | None = None,
        cost: Decimal | None = None,
        try_of: AgentCall | None = None,
    ) -> None:
        """Write the end of a call, and wait for the commit. `try_of` is the call in progress whose budgets it uses."""
        await self._write(self._ending(call, usage, cost, try_of))

    async def settle(self, call: AgentCall) -> None:
        """Write the outcome of a call that died with its process, and wait for the commit.

        The call begins and ends with its outcome: the time that passed until then is not its duration.
        """
        operation = self._ending(call, None, None)
        call.started_at = call.finished_at or call.started_at
        await self._write(operation)

    def finish_soon(self, call: AgentCall) -> Future[Activity]:
        """Queue the end of a call, and return the future of its commit."""
        return self.attempt.write(replace(self._ending(call, None, None), may_wait=True))

    def finish_before_next(self, call: AgentCall) -> None:
        """Queue the end of a call: it is committed no later than the next awaited write, which raises its error.

        Thus the end of a tool call and the start of the model call that sends its output share a transaction.
        """
        self._queued.append(self.finish_soon(call))

    async def written(self) -> None:
        """Wait for the commit of the queued ends of calls."""
        queued, self._queued = self._queued, []
        for write in queued:
            await self._committed(write)

    def fail_soon(self, call: AgentCall, error: BaseException) -> None:
        """Queue the end of a call that has failed, or was canceled; its reservation in budgets ends."""
        call.state, call.error = CallState.FAILED, one_line(error) if isinstance(error, Exception) else CANCELED
        self.finish_soon(call)

    def request(self, path: str, call_id: str, **values: Any) -> None:
        """Note that a tool call waits for a decision; once per call."""
        key = path, short_call_id(call_id)
        if key not in self.requests:
            number = sum(1 for each in self.approvals if (each.path, each.call_id) == key)
            self.requests[key] = Approval(
                activity_id=self.attempt.agent_id,
                path=path,
                call_id=key[1],
                number=number,
                attempt=self.attempt.number,
                **values,
            )

    def requests_of(self, path: str) -> list[Approval]:
        """Return the requests of the run at `path` and of the runs inside it."""
        inside = (f"{path}/", f"{path}^", f"{path}+")
        return [each for each in self.requests.values() if each.path == path or each.path.startswith(inside)]

    def approved_for_run(self, tool: str) -> bool:
        """Return whether a person has approved all calls of a tool within the run."""
        return any(
            each.tool == tool and each.status == ApprovalStatus.APPROVED and each.scope == ApprovalScope.RUN
            for each in self.approvals
        )

    async def set_aside(self, path: str) -> None:
        """Set aside the run at `path` with everything inside it, so that it is made again."""
        await self._write(SetAside(agent_id=self.attempt.agent_id, fence=self.attempt.fence, path=path))
        inside = (path, f"{path}/", f"{path}^", f"{path}+")
        for place in [place for place in self.calls if place[0] == path or place[0].startswith(inside[1:])]:
            del self.calls[place]
        self.approvals = [each for each in self.approvals if each.path != path and not each.path.startswith(inside[1:])]

    def _beginning(self, calls: Sequence[AgentCall], charge: Charge | None = None) -> BeginCall:
        for call in calls:
            make_storable(call, "arguments", "request")
        new, again = self._divided(calls)
        return BeginCall(agent_id=self.attempt.agent_id, fence=self.attempt.fence, new=new, again=again, charge=charge)

    def _ending(
        self,
        call: AgentCall,
        usage: Mapping[str, int] | None,
        cost: Decimal | None,
        try_of: AgentCall | None = None,
    ) -> FinishCall:
        call.finished_at = timezone.now()
        call.error = storable_text(call.error)[:MAX_ERROR]
        make_storable(call, "arguments", "output")
        new, changed = self._divided([call])
        charge = self._charges.pop(call.pk, None)
        if try_of is not None and usage:
            reserved = self._charges.get(try_of.pk)
            charge = None if reserved is None else reserved.of_try()
        if charge is not None and (call.state != CallState.FAILED or usage):
            charge.set_spent(cost, (usage or {}).get("total_tokens", 0))
        return FinishCall(
            agent_id=self.attempt.agent_id,
            fence=self.attempt.fence,
            new=new,
            changed=changed,
            usage=usage or {},
            cost=cost,
            is_progress=call.state != CallState.FAILED,
            charge=charge,
        )

    def _divided(self, calls: Sequence[AgentCall]) -> tuple[list[AgentCall], list[AgentCall]]:
        """Return the new rows, and the rows that are stored, or will be by an earlier write."""
        new = [call for call in calls if call.pk not in self._stored]
        stored = [call for call in calls if call.pk in self._stored]
        self._stored.update(call.pk for call in new)
        return new, stored

    async def _write(self, operation: Operation) -> None:
        write = self.attempt.write(operation)
        await self._committed(write)  # before the queued writes, which are committed by then
        await self.written()

    async def _committed(self, write: Future[Activity]) -> None:
        try:
            if write.done():
                write.result()
            else:
                # Shielded: a call that has ended is recorded even if its attempt is being stopped.
                await asyncio.shield(asyncio.wrap_future(write))
        except OverBudget:
            raise
        except InvalidTransition as error:
            self.refusal = error  # the SDK may wrap it
            raise


async def journal_of(attempt: OwningAttempt) -> Journal:
    """Return the journal of an attempt, loaded at the first call."""
    root = attempt.root
    if _JOURNAL not in root.locals:
        loaded = await sync_to_async(_load)(root)
        root.locals.setdefault(_JOURNAL, loaded)  # another run may have loaded it meanwhile
    journal: Journal = root.locals[_JOURNAL]
    return journal


def _load(attempt: OwningAttempt) -> Journal:
    using = database()
    calls = AgentCall.objects.using(using).of(attempt.agent_id).current().defer("request")
    approvals = Approval.objects.using(using).of(attempt.agent_id)
    return Journal(attempt, list(calls), list(approvals))
