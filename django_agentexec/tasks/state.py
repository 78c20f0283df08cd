"""`AttemptState`: what an attempt is, and what the worker does with it. `Attempt` adds what handlers call."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Model

from ..activity.suspension import Condition, Suspended, earliest
from ..activity.transitions import Operation
from ..exceptions import InvalidOption
from ..models import CONDITIONS, Activity, Approval, WaitingFor
from ..validation import stored_time
from .children import Children

Write = Callable[[Operation], "Future[Activity]"]


def _as_it_is(operation: Operation) -> Operation:
    return operation


def _uncancelable() -> Future[None]:
    """Return a future that its waiters cannot cancel."""
    future: Future[None] = Future()
    future.set_running_or_notify_cancel()
    return future


@dataclass(frozen=True, eq=False)
class AttemptState:
    """The state of an attempt, as worker, pipelines and runners read and change it."""

    agent_id: UUID
    number: int
    """1 for the first attempt of the activity. A crash of the process, or a wait for children, does not add one."""
    fence: int
    """Grows with every claim. A store that supports fencing can reject writes with an older fence."""
    write: Write = field(repr=False)
    children: Children = field(kw_only=True, repr=False)
    """Behind `spawn`, `map` and `gather`."""
    scope: str = ""
    """The prefix of its children's keys: in a pipeline, the step."""
    tries: int = 0
    """The number of the step's try; 0 outside of steps."""
    adapt: Callable[[Operation], Operation] = field(default=_as_it_is, repr=False)
    """Changes each operation before it is written: the progress of a step is a share of the pipeline's."""
    outer: AttemptState | None = field(default=None, repr=False)
    """The enclosing attempt: in a step, the pipeline's."""
    is_parent: bool = True
    """False if the activity had no children when this attempt began."""
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The activity's metadata, such as its tenant; read-only."""
    enqueued_by: str | None = None
    """The primary key, as text, of the user who enqueued it over REST, or under `activity.acting_as`; None for code.
    Children take their parent's."""
    session_id: str | None = None
    """The session id of the conversation of which it is a turn; None without one."""
    locals: dict[Any, Any] = field(default_factory=dict, repr=False)
    """Values of this package that live as long as the attempt, by name."""
    records_calls: bool = True
    """False in unit tests: runners of agents then neither record nor replay calls."""
    _canceled: threading.Event = field(default_factory=threading.Event, repr=False)
    _lost: Future[None] = field(default_factory=_uncancelable, repr=False)
    _awaited: dict[UUID, None] = field(default_factory=dict, repr=False)
    _fan_out: dict[str, Any] = field(default_factory=dict, repr=False)
    _requests: list[Approval] = field(default_factory=list, repr=False)
    _conditions: list[Condition] = field(default_factory=list, repr=False)
    _completion_checks: list[Callable[[], None]] = field(default_factory=list, repr=False)

    @property
    def idempotency_key(self) -> str:
        """A key that all attempts of this activity share, for services that deduplicate requests."""
        return str(self.agent_id)

    @property
    def canceled(self) -> bool:
        """Whether the handler must stop: canceled, timed out, lease lost or worker shutting down.

        Async handlers also get a `CancelledError`; sync handlers must check this property regularly.
        """
        return self._canceled.is_set() or (self.outer is not None and self.outer.canceled)

    @property
    def lost(self) -> Future[None]:
        """A future that ends when another worker may own the activity; a waiting sync write then ends, too."""
        return self._lost if self.outer is None else self.outer.lost

    @property
    def root(self) -> AttemptState:
        """The outermost attempt: the activity's."""
        return self if self.outer is None else self.outer.root

    @property
    def suspension(self) -> Suspended | None:
        """The suspension that a `gather`, a run of an agent or `suspend_until` has requested; None without one.

        It overrides the handler's outcome, even if the handler has caught the exception.
        """
        root = self.root
        if not (root._awaited or root._requests or root._conditions):
            return None
        return Suspended(list(root._awaited), root._fan_out, root._requests, earliest(root._conditions))

    def suspend(self, awaited_ids: Sequence[UUID]) -> Suspended:
        """Record that the handler waits for these children, and return the exception that suspends it."""
        self.root._awaited.update(dict.fromkeys(awaited_ids))
        self.root._fan_out[self.scope] = self.children.entry()
        return Suspended(awaited_ids)

    def suspend_for_decision(self, requests: Sequence[Approval]) -> Suspended:
        """Record that the handler waits for these new approvals, and return the exception that suspends it."""
        noted = {request.pk for request in self.root._requests}
        self.root._requests.extend(request for request in requests if request.pk not in noted)
        return Suspended([], requests=requests)

    def suspend_until(
        self,
        reason: WaitingFor,
        until: datetime | None = None,
        *,
        message: str = "",
        public_message: str = "",
        record: Model | None = None,
    ) -> Suspended:
        """Record that the handler waits for a condition, and return the exception that suspends it.

        Raise it: `raise attempt.suspend_until(WaitingFor.LIMIT, until)`. The activity releases its slot, lease and
        lock, and is resumed at `until` (an aware datetime; None: never by itself) or by `activity.resumption.resume`.
        Its handler then runs again from its beginning; recorded calls are replayed. The wait counts neither as a retry
        nor as a crash. `message` is the log line, `public_message` its text for users without the monitor permission,
        and `record` a new row that is stored with the suspension. If several parts of the handler wait, the condition
        that ends first applies.

        Raises `InvalidOption` for a reason that is no condition, or a time that cannot be stored.
        """
        if reason not in CONDITIONS:
            names = " or ".join(f"WaitingFor.{each.name}" for each in CONDITIONS)
            raise InvalidOption(f"suspend_until(reason={reason!r}) must be {names}.")
        moment = None if until is None else stored_time("until", until)
        condition = Condition(WaitingFor(reason), moment, message, public_message, record)
        self.root._conditions.append(condition)
        return Suspended([], condition=condition)

    def enter(self) -> None:
        """Record that the handler, or step, begins in the calling task or thread."""
        self.children.enter()

    def cancel(self) -> None:
        """Set `canceled`; called by the worker."""
        self._canceled.set()

    def lose(self) -> None:
        """End `lost`; called by the worker, once."""
        self._lost.set_result(None)

    def add_completion_check(self, check: Callable[[], None]) -> None:
        """Call `check` when the handler (in a pipeline: the step) has returned.

        An exception of the check replaces the result. Runners use it for runs that wait for approvals.
        """
        self._completion_checks.append(check)

    def check_completion(self) -> None:
        """Call the completion checks; called by the worker when the handler has returned."""
        for check in self._completion_checks:
            check()
