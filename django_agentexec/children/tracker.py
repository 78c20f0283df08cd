"""`Tracker`: counts the members of a batch that is not known beforehand, and enqueues a task when all are done.

Counting is by member, in the database: what is counted in or out twice, by a task that was delivered again or
an activity that was retried, counts once.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db import OperationalError, connections, transaction
from django.db.models import Exists, F, OuterRef, QuerySet
from pydantic import BaseModel

from ..activity.completion_hooks import register_hook
from ..activity.current import current_attempt
from ..activity.store import database, insert
from ..bulk_sql import limit_lock_wait
from ..conf import conf
from ..dispatch.push import push_on_commit
from ..exceptions import ActivityNotFound, InvalidOption, InvalidTransition
from ..models import FINISHED, Activity, HookFlag, TrackerMember, TrackerState
from ..outages import Outage, classify_outage
from ..tasks.definition import TaskDefinition
from ..tasks.enqueue import ActivityHandle, definition_of, new_rows
from ..validation import is_storable, validate_id, validate_metadata

logger = logging.getLogger(__name__)

MAX_NAME = 200  # characters; the column's size
MAX_MEMBER = 255
MAX_TRIES = 5  # of a transaction; the second one reads what is committed, so the others are for deadlocks
CONFLICTS = {"40001", "40P01"}  # SQLSTATE of a serialization failure and of a deadlock
MYSQL_CONFLICTS = {1020, 1205, 1213}  # a record has changed, a lock was waited for too long, a deadlock


P = ParamSpec("P")
R = TypeVar("R")


def _in_transaction(function: Callable[P, R]) -> Callable[P, R]:
    """Run `function` in a transaction, or in the caller's.

    A transaction of its own that other users of the tracker have got in the way of is run again. Above READ COMMITTED
    they do so by any change, and a snapshot from before the tracker's lock does not show who was counted out
    meanwhile; so the next try reads what is committed. A caller's transaction gets the database's error, as for any
    other conflict at its level.
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
    """Whether the database has undone the transaction because of another one."""
    state = getattr(error.__cause__, "sqlstate", None) or getattr(error.__cause__, "pgcode", None)
    return state in CONFLICTS or (bool(error.args) and error.args[0] in MYSQL_CONFLICTS)


class Tracker:
    """The members of one batch: counted in by `incr` or `add`, counted out by `decr` or their activity's end::

        tracker = Tracker("research", batch_id)
        for company in found:
            tracker.add(attempt.spawn(research, company))
        tracker.on_complete(summarize, SummaryContext(batch_id=batch_id))

    A tracker is made by its first use, and is the same wherever its name and batch are the same. Every verb has an
    `a...` form, takes part in the caller's transaction, and raises `InvalidOption` for impossible names.
    """

    def __init__(self, name: str, batch_id: str | UUID) -> None:
        self.name = _checked(name, "name", MAX_NAME)
        self.batch_id = _checked(str(batch_id), "batch_id", MAX_NAME)

    def __repr__(self) -> str:
        return f"Tracker({self.name!r}, {self.batch_id!r})"

    @_in_transaction
    def incr(self, *members: str | UUID) -> int:
        """Count members in (without any: the running activity); return how many are not done.

        Who was counted in before, or out already, is not counted again. Raises `InvalidTransition` for a new member
        after `on_complete` has fired.
        """
        names = _members(members)
        state = self._locked()
        self._insert(state, dict.fromkeys(names), is_done=False)
        return _open(state)

    @_in_transaction
    def decr(self, *members: str | UUID) -> int:
        """Count members out (without any: the running activity); return how many are not done yet.

        Who was not counted in is counted out for good, too: its `incr` may come later.
        """
        names = _members(members)
        state = self._locked()
        self._insert(state, dict.fromkeys(names), is_done=True)
        state.members.filter(member__in=names).update(is_done=True)
        return _fire_if_done(state)

    @_in_transaction
    def add(self, *activities: ActivityHandle | UUID) -> int:
        """Count activities in, and out again when they end, however they end; return how many are not done.

        Raises `ActivityNotFound`, and what `incr` raises.
        """
        ids = [one.agent_id if isinstance(one, ActivityHandle) else validate_id(one) for one in activities]
        state = self._locked()
        self._insert(state, {str(agent_id): agent_id for agent_id in ids}, is_done=False)
        rows = Activity.objects.using(database()).filter(agent_id__in=ids)
        # The update waits for an end that is under way; what the rows say afterwards is the truth.
        if rows.update(hook_flags=F("hook_flags").bitor(HookFlag.TRACKED)) < len(set(ids)):
            raise ActivityNotFound(next(iter(set(ids) - set(rows.values_list("agent_id", flat=True)))))
        ended = rows.filter(status__in=FINISHED).values_list("agent_id", flat=True)
        state.members.filter(activity_id__in=list(ended)).update(is_done=True)
        return _fire_if_done(state)

    def count(self) -> int:
        """Return how many members are not done."""
        return self._left().count()

    def complete(self) -> bool:
        """Whether no member is left that is not done."""
        return not self._left().exists()

    @_in_transaction
    def on_complete(
        self,
        task: str | TaskDefinition[..., Any],
        context: BaseModel,
        *,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Enqueue `task` with `context` when every member is done: exactly once, and at once if that is so already.

        Call it when all members are counted in. It may be called again, by a task that was delivered again: the
        first call counts. `metadata` is the running activity's unless said. Raises what `enqueue` raises, and
        `InvalidOption` if another task is to be enqueued already.
        """
        definition = definition_of(task)
        (row,) = new_rows(definition, [context], metadata=metadata)  # checks everything
        attempt, using = current_attempt(), database()
        state = self._locked()
        if state.task and state.task != definition.name:
            raise InvalidOption(f"{self!r} has {state.task!r} to enqueue already, not {definition.name!r}.")
        if not state.task:
            state.task, state.context = definition.name, row.context
            state.parent_id = attempt.agent_id if attempt else None
            state.metadata = validate_metadata(metadata)
            if metadata is None and attempt:
                mine = Activity.objects.using(using).filter(agent_id=attempt.agent_id)
                state.metadata = mine.values_list("metadata", flat=True).first() or {}
            state.save(using=using)
        _fire_if_done(state)

    def delete(self) -> None:
        """Forget the members, and what was to be enqueued."""
        TrackerState.objects.using(database()).filter(name=self.name, batch_id=self.batch_id).delete()

    def _left(self) -> QuerySet[TrackerMember]:
        rows = TrackerMember.objects.using(database())
        return rows.filter(tracker__name=self.name, tracker__batch_id=self.batch_id, is_done=False)

    def _locked(self) -> TrackerState:
        """Return the tracker's row, locked until the end of the transaction; it is inserted by its first use."""
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
            raise InvalidTransition(f"{self!r} is complete and has enqueued {state.task!r}; {new[0]!r} came too late.")
        TrackerMember.objects.using(database()).bulk_create(
            TrackerMember(tracker=state, member=name, activity_id=members[name], is_done=is_done) for name in new
        )

    aincr = sync_to_async(incr)
    adecr = sync_to_async(decr)
    aadd = sync_to_async(add)
    acount = sync_to_async(count)
    acomplete = sync_to_async(complete)
    aon_complete = sync_to_async(on_complete)
    adelete = sync_to_async(delete)


def _lock(rows: QuerySet[TrackerState]) -> bool:
    """Lock the tracker; return whether there is one.

    By an update, which changes nothing: a transaction above READ COMMITTED that has waited for the lock of a mere
    select would go on with what it saw before, and two that count out the last members would both leave it open.
    """
    return bool(rows.update(fired=F("fired")))


def _fire_if_done(state: TrackerState) -> int:
    """Enqueue what the (locked) tracker has to enqueue, if it is time; return how many members are not done."""
    left = _open(state)
    if left == 0 and state.task and state.fired is None:
        definition = definition_of(state.task)
        context = definition.load_context(json.dumps(state.context))
        (row,) = new_rows(definition, [context], metadata=state.metadata)
        row.parent_id = state.parent_id
        insert([row], conf.ACTIVITY_MESSAGE_CREATE, push_on_commit)
        state.fired = row.agent_id
        state.save(using=database(), update_fields=["fired"])
    return left


def _open(state: TrackerState) -> int:
    return state.members.filter(is_done=False).count()


def _members(members: Sequence[str | UUID]) -> list[str]:
    if not members:
        attempt = current_attempt()
        if attempt is None:
            raise InvalidOption("Outside of a handler there is no running activity to count: name the member.")
        return [str(attempt.agent_id)]
    return list(dict.fromkeys(_checked(str(member), "member", MAX_MEMBER) for member in members))


def _checked(value: str, what: str, most: int) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= most or not is_storable(value):
        raise InvalidOption(f"A tracker's {what} has 1 to {most} characters, but this is {value!r:.100}.")
    return value


def _ended(activities: Sequence[Activity]) -> None:
    _count_out(activity.agent_id for activity in activities)


def _count_out(agent_ids: Iterable[UUID]) -> None:
    """Count ended activities out of every tracker, one transaction each."""
    using, ids = database(), list(agent_ids)
    members = TrackerMember.objects.using(using).filter(activity_id__in=ids, is_done=False)
    for tracker_id in members.order_by("tracker_id").values_list("tracker_id", flat=True).distinct():
        try:
            _count_out_of(tracker_id, members.filter(tracker_id=tracker_id))
        except OperationalError as error:
            if classify_outage(error) is not Outage.LOCKED:
                raise
            logger.warning("Tracker %s is locked by another transaction; ends are counted later.", tracker_id)
        except (LookupError, ValueError):  # its task is gone, or takes another context by now
            logger.exception("Tracker %s cannot enqueue its task; it is tried again.", tracker_id)


@_in_transaction
def _count_out_of(tracker_id: int, members: QuerySet[TrackerMember]) -> None:
    limit_lock_wait(database(), conf.LOCK_TIMEOUT)
    rows = TrackerState.objects.using(database()).filter(pk=tracker_id)
    if _lock(rows):  # otherwise it was deleted meanwhile
        members.update(is_done=True)
        _fire_if_done(rows.get())


def _count_out_the_forgotten() -> None:
    using = database()
    active = Activity.objects.active().filter(agent_id=OuterRef("activity_id"))
    members = TrackerMember.objects.using(using).filter(is_done=False, activity_id__isnull=False)
    forgotten = members.exclude(Exists(active)).values_list("activity_id", flat=True)
    if ids := [agent_id for agent_id in forgotten if agent_id]:
        _count_out(ids)


def install() -> None:
    """Register the hooks; called when the app is ready."""
    register_hook(HookFlag.TRACKED, _ended, _count_out_the_forgotten)
