"""`Tracker`: a batch whose members are added while it runs, and a task that is enqueued when all members are done.

Members are stored by name in the database. A member that is added or marked as done twice, by a redelivered task or
a retried activity, counts once.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db import OperationalError, connections, transaction
from django.db.models import Exists, F, OuterRef, QuerySet
from pydantic import BaseModel

from ..activity.completion_hooks import register_hook
from ..activity.store import database, insert
from ..blocking import blocking
from ..bulk_sql import limit_lock_wait
from ..conf import conf
from ..current import current_attempt
from ..dispatch.push import push_or_log
from ..exceptions import ActivityNotFound, InvalidOption, InvalidTransition
from ..models import FINISHED, Activity, HookFlag, TrackerMember, TrackerState
from ..outages import Outage, classify_outage
from ..registry import get_task
from ..tasks.definition import AnyTask
from ..tasks.run import Run
from ..validation import is_storable, validate_id, validate_metadata

logger = logging.getLogger(__name__)

MAX_NAME_LENGTH = 200  # characters; the size of the column
MAX_MEMBER_LENGTH = 255
MAX_TRIES = 5  # of a transaction; serialization failures succeed at the second try, the rest is for deadlocks
CONFLICTS = {"40001", "40P01"}  # SQLSTATE of a serialization failure and of a deadlock
MYSQL_CONFLICTS = {1020, 1205, 1213}  # record changed, lock wait timeout, deadlock


P = ParamSpec("P")
R = TypeVar("R")


def _in_transaction(function: Callable[P, R]) -> Callable[P, R]:
    """Run `function` in a new transaction, or in the caller's transaction.

    A new transaction is retried after a conflict with another user of the tracker. Above READ COMMITTED every
    concurrent change is a conflict, and a snapshot taken before the tracker's lock does not contain members that were
    marked as done meanwhile; therefore the next try uses READ COMMITTED. In the caller's transaction the database's
    error is raised, like for any other conflict at its isolation level.
    """

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        connection = connections[database()]
        is_own = not connection.in_atomic_block and connection.get_autocommit()
        for number in range(MAX_TRIES):
            try:
                with transaction.atomic(using=connection.alias):
                    if number and connection.vendor == "postgresql":
                        with connection.cursor() as cursor:
                            cursor.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
                    return function(*args, **kwargs)
            except OperationalError as error:
                if not is_own or number + 1 == MAX_TRIES or not _is_conflict(error):
                    raise
        raise AssertionError("The last try returns or raises.")

    return run


def _is_conflict(error: OperationalError) -> bool:
    """Return whether the database rolled back the transaction because of a concurrent transaction."""
    state = getattr(error.__cause__, "sqlstate", None) or getattr(error.__cause__, "pgcode", None)
    return state in CONFLICTS or (bool(error.args) and error.args[0] in MYSQL_CONFLICTS)


class _DeprecatedComplete:
    """`Tracker.complete`: callable as in earlier releases, and usable as a condition as in agentexec."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def __call__(self) -> bool:
        warnings.warn("Tracker.complete() is deprecated; use Tracker.is_complete.", DeprecationWarning, stacklevel=2)
        return self._tracker.is_complete

    def __bool__(self) -> bool:
        warnings.warn("Tracker.complete is deprecated; use Tracker.is_complete.", DeprecationWarning, stacklevel=2)
        return self._tracker.is_complete


class Tracker:
    """The members of one batch, added by `incr` or `add` and marked as done by `decr` or the end of an activity::

        tracker = Tracker("research", batch_id)
        for company in found:
            tracker.add(attempt.spawn(research, company))
        tracker.on_complete(summarize, SummaryContext(batch_id=batch_id))

    The first use creates the tracker; trackers with the same name and batch are the same tracker. Every method has an
    `a...` twin and takes part in the caller's transaction. Raises `InvalidOption` for invalid names.
    """

    def __init__(self, name: str, batch_id: str | UUID) -> None:
        self.name = _validated(name, "name", MAX_NAME_LENGTH)
        self.batch_id = _validated(str(batch_id), "batch_id", MAX_NAME_LENGTH)

    def __repr__(self) -> str:
        return f"Tracker({self.name!r}, {self.batch_id!r})"

    @blocking
    @_in_transaction
    def incr(self, *members: str | UUID) -> int:
        """Add members (by default the running activity) and return the number of members that are not done.

        Members that were added before or are already done do not count again. Raises `InvalidTransition` for a new
        member after the task of `on_complete` was enqueued.
        """
        names = _member_names(members)
        state = self._locked()
        self._insert(state, dict.fromkeys(names), is_done=False)
        return _count_open(state)

    @blocking
    @_in_transaction
    def decr(self, *members: str | UUID) -> int:
        """Mark members (by default the running activity) as done and return the number of members that are not done.

        Unknown members are stored as done, so a later `incr` of them has no effect.
        """
        names = _member_names(members)
        state = self._locked()
        self._insert(state, dict.fromkeys(names), is_done=True)
        state.members.filter(member__in=names).update(is_done=True)
        return _fire_if_done(state)

    @blocking
    @_in_transaction
    def add(self, *activities: Run | UUID) -> int:
        """Add activities, which are done when they end with any status; return the number of members not done.

        Raises `ActivityNotFound` and the exceptions of `incr`.
        """
        ids = [each.agent_id if isinstance(each, Run) else validate_id(each) for each in activities]
        state = self._locked()
        self._insert(state, {str(agent_id): agent_id for agent_id in ids}, is_done=False)
        rows = Activity.objects.using(database()).filter(agent_id__in=ids)
        # The update waits for a concurrent end of the activity, so the statuses read after it are final.
        if rows.update(hook_flags=F("hook_flags").bitor(HookFlag.TRACKED)) < len(set(ids)):
            raise ActivityNotFound(next(iter(set(ids) - set(rows.values_list("agent_id", flat=True)))))
        ended = rows.filter(status__in=FINISHED).values_list("agent_id", flat=True)
        state.members.filter(activity_id__in=list(ended)).update(is_done=True)
        return _fire_if_done(state)

    @blocking
    def count(self) -> int:
        """Return the number of members that are not done."""
        return self._open_members().count()

    @property
    def is_complete(self) -> bool:
        """Whether all members are done. In async code, use `await tracker.ais_complete()`."""
        return not self._open_members().exists()

    @property
    def complete(self) -> _DeprecatedComplete:
        """Deprecated: use `is_complete`."""
        return _DeprecatedComplete(self)

    @blocking
    @_in_transaction
    def on_complete(
        self,
        task: str | AnyTask,
        context: BaseModel,
        *,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Enqueue `task` with `context` exactly once, when all members are done; immediately if they are done now.

        Call it after all members were added. Further calls, for example by a redelivered task, have no effect.
        `metadata` defaults to the metadata of the running activity. Raises the exceptions of `enqueue`, and
        `InvalidOption` if an earlier call set another task.
        """
        definition = get_task(task)
        (row,) = definition.new_rows([context], metadata=metadata)  # validates all arguments
        attempt, using = current_attempt(), database()
        state = self._locked()
        if state.task and state.task != definition.name:
            raise InvalidOption(
                f"{self!r} already has the task {state.task!r}; it cannot be changed to {definition.name!r}."
            )
        if not state.task:
            state.task, state.context = definition.name, row.context
            state.parent_id = attempt.agent_id if attempt else None
            state.metadata = validate_metadata(metadata)
            if metadata is None and attempt:
                rows = Activity.objects.using(using).filter(agent_id=attempt.agent_id)
                state.metadata = rows.values_list("metadata", flat=True).first() or {}
            state.save(using=using)
        _fire_if_done(state)

    @blocking
    def delete(self) -> None:
        """Delete the members and the task to enqueue."""
        TrackerState.objects.using(database()).filter(name=self.name, batch_id=self.batch_id).delete()

    def _open_members(self) -> QuerySet[TrackerMember]:
        rows = TrackerMember.objects.using(database())
        return rows.filter(tracker__name=self.name, tracker__batch_id=self.batch_id, is_done=False)

    def _locked(self) -> TrackerState:
        """Return the tracker's row, locked until the end of the transaction. Insert it if it does not exist."""
        rows = TrackerState.objects.using(database()).filter(name=self.name, batch_id=self.batch_id)
        if not _lock(rows):
            new = TrackerState(name=self.name, batch_id=self.batch_id)
            TrackerState.objects.using(database()).bulk_create([new], ignore_conflicts=True)
            _lock(rows)
        return rows.get()

    def _insert(self, state: TrackerState, members: Mapping[str, UUID | None], *, is_done: bool) -> None:
        known = set(state.members.filter(member__in=members).values_list("member", flat=True))
        new = [name for name in members if name not in known]
        if new and state.fired and not is_done:
            raise InvalidTransition(
                f"{self!r} is complete and has enqueued {state.task!r}; member {new[0]!r} cannot be added."
            )
        TrackerMember.objects.using(database()).bulk_create(
            TrackerMember(tracker=state, member=name, activity_id=members[name], is_done=is_done) for name in new
        )

    async def aincr(self, *members: str | UUID) -> int:
        """Async version of `incr`."""
        return await sync_to_async(self.incr)(*members)

    async def adecr(self, *members: str | UUID) -> int:
        """Async version of `decr`."""
        return await sync_to_async(self.decr)(*members)

    async def aadd(self, *activities: Run | UUID) -> int:
        """Async version of `add`."""
        return await sync_to_async(self.add)(*activities)

    async def acount(self) -> int:
        """Async version of `count`."""
        return await sync_to_async(self.count)()

    async def ais_complete(self) -> bool:
        """Async version of `is_complete`."""
        return not await self._open_members().aexists()

    async def acomplete(self) -> bool:
        """Deprecated: use `ais_complete`."""
        warnings.warn("Tracker.acomplete() is deprecated; use ais_complete().", DeprecationWarning, stacklevel=2)
        return await self.ais_complete()

    async def aon_complete(
        self,
        task: str | AnyTask,
        context: BaseModel,
        *,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Async version of `on_complete`."""
        await sync_to_async(self.on_complete)(task, context, metadata=metadata)

    async def adelete(self) -> None:
        """Async version of `delete`."""
        await sync_to_async(self.delete)()


def _lock(rows: QuerySet[TrackerState]) -> bool:
    """Lock the tracker's row and return whether it exists.

    Uses an update that changes nothing instead of `SELECT ... FOR UPDATE`: above READ COMMITTED, a transaction that
    waited for a select lock would continue with its old snapshot, and two transactions that mark the last members as
    done would both see an open member.
    """
    return bool(rows.update(fired=F("fired")))


def _fire_if_done(state: TrackerState) -> int:
    """Enqueue the task of a (locked) tracker if all members are done; return the number of members not done."""
    open_count = _count_open(state)
    if open_count == 0 and state.task and state.fired is None:
        definition = get_task(state.task)
        context = definition.load_context(json.dumps(state.context))
        (row,) = definition.new_rows([context], metadata=state.metadata)
        row.parent_id = state.parent_id
        insert([row], conf.ACTIVITY_MESSAGE_CREATE, push_or_log)
        state.fired = row.agent_id
        state.save(using=database(), update_fields=["fired"])
    return open_count


def _count_open(state: TrackerState) -> int:
    return state.members.filter(is_done=False).count()


def _member_names(members: Sequence[str | UUID]) -> list[str]:
    if not members:
        attempt = current_attempt()
        if attempt is None:
            raise InvalidOption("Outside of a handler there is no running activity to count. Name the member.")
        return [str(attempt.agent_id)]
    return list(dict.fromkeys(_validated(str(member), "member", MAX_MEMBER_LENGTH) for member in members))


def _validated(value: str, field: str, max_length: int) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= max_length or not is_storable(value):
        raise InvalidOption(f"The {field} of a tracker has 1 to {max_length} characters, but this is {value!r:.100}.")
    return value


def _mark_ended(activities: Sequence[Activity]) -> None:
    _mark_done(activity.agent_id for activity in activities)


def _mark_done(agent_ids: Iterable[UUID]) -> None:
    """Mark ended activities as done in all trackers, one transaction per tracker."""
    using, ids = database(), list(agent_ids)
    members = TrackerMember.objects.using(using).filter(activity_id__in=ids, is_done=False)
    for tracker_id in members.order_by("tracker_id").values_list("tracker_id", flat=True).distinct():
        try:
            _mark_done_in(tracker_id, members.filter(tracker_id=tracker_id))
        except OperationalError as error:
            if classify_outage(error) is not Outage.LOCKED:
                raise
            logger.warning(
                "Tracker %s is locked by another transaction; its members are marked as done later.", tracker_id
            )
        except (LookupError, ValueError):  # its task is not registered any more, or its context type has changed
            logger.exception("Tracker %s cannot enqueue its task; the reconciler retries it.", tracker_id)


@_in_transaction
def _mark_done_in(tracker_id: int, members: QuerySet[TrackerMember]) -> None:
    limit_lock_wait(database(), conf.LOCK_TIMEOUT)
    rows = TrackerState.objects.using(database()).filter(pk=tracker_id)
    if _lock(rows):  # it may have been deleted meanwhile
        members.update(is_done=True)
        _fire_if_done(rows.get())


def _mark_missed_ends() -> None:
    using = database()
    active = Activity.objects.active().filter(agent_id=OuterRef("activity_id"))
    members = TrackerMember.objects.using(using).filter(is_done=False, activity_id__isnull=False)
    missed = members.exclude(Exists(active)).values_list("activity_id", flat=True)
    if ids := [agent_id for agent_id in missed if agent_id]:
        _mark_done(ids)


def install() -> None:
    """Register the completion hook; called when the app is ready."""
    register_hook(HookFlag.TRACKED, _mark_ended, _mark_missed_ends)
