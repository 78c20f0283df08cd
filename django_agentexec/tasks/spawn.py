"""Spawn: children that are found again when their parent runs again. Behind `Attempt.spawn`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

from django.db import IntegrityError, transaction
from django.db.models import F
from pydantic import BaseModel, ValidationError

from ..activity.dispatch import push_on_commit
from ..activity.operations import Retry
from ..activity.statements import lock_rows
from ..activity.writer import apply, database, insert
from ..conf import conf
from ..exceptions import InvalidOption, SpawnMismatch, StaleAttempt
from ..models import Activity, Status, Ties
from ..values import is_storable
from .definition import BulkOptions, TaskDefinition
from .enqueue import ActivityHandle, definition_of, handle_of, new_rows

if TYPE_CHECKING:
    from .attempt import Attempt

MAX_SPAWN_KEY = 255  # characters; the column's size
MOST_KEYS = 500  # in one query; for more, all children are looked at
FAILED = (Status.ERROR, Status.CANCELED)


@dataclass(frozen=True, slots=True)
class Place:
    """What a child is known by, and what it is to do."""

    definition: TaskDefinition[..., Any]
    context: BaseModel
    key: str
    is_numbered: bool
    """Whether the key is a number that the call got, so that the context must tell whether it is the same child."""


def place(attempt: Attempt, task: str | TaskDefinition[..., Any], context: BaseModel, key: str | None) -> Place:
    """Return the place of a child; numbers it, without a `key`. Raises `UnknownTask`, `InvalidOption`."""
    definition = definition_of(task)
    if key is not None and not (isinstance(key, str) and key and is_storable(key)):
        raise InvalidOption(f"The key {key!r} of a child must be text with at least one character.")
    is_numbered = key is None
    if is_numbered:
        full = f"{attempt.scope}#{definition.name}:{attempt._spawned[definition.name]}"
        attempt._spawned[definition.name] += 1
    else:
        full = f"{attempt.scope}/{key}"
    if len(full) > MAX_SPAWN_KEY:
        raise InvalidOption(
            f"The key {full[:80]!r} of a child has {len(full)} characters; {MAX_SPAWN_KEY} are allowed."
        )
    return Place(definition, context, full, is_numbered)


def spawn_all(attempt: Attempt, places: Sequence[Place], **options: Unpack[BulkOptions]) -> list[ActivityHandle]:
    """Return the children at these places, new or found, in one transaction. See `Attempt.spawn`."""
    if not places:
        return []
    keys = [one.key for one in places]
    if len(set(keys)) < len(keys):
        raise InvalidOption(f"Children of one parent need different keys, but these are {keys!r}.")
    wanted = [_row(attempt, one, options) for one in places]
    using = database()
    with transaction.atomic(using=using):
        parent = _owned(attempt, using)
        if "metadata" not in options:
            for row in wanted:
                row.metadata = parent.metadata
        found = _found(attempt, keys, using)
        for one, row in zip(places, wanted, strict=True):
            if one.key in found:
                _check_same(one, row, found[one.key])
        new = [row for row in wanted if row.spawn_key not in found]
        if new:
            _insert(attempt, new, using)
        _bring_back(attempt, list(found.values()), using)
    return [
        handle_of(found[one.key], created=False) if one.key in found else handle_of(row)
        for one, row in zip(places, wanted, strict=True)
    ]


def _row(attempt: Attempt, one: Place, options: BulkOptions) -> Activity:
    # A lock key may be made of metadata, which is the parent's unless said.
    own: BulkOptions = {"metadata": attempt.metadata, **options}
    (row,) = new_rows(one.definition, [one.context], **own)
    row.parent_id, row.spawn_key, row.spawned_in = attempt.agent_id, one.key, _try(attempt)
    row.ties = Ties.CHILD
    return row


def _try(attempt: Attempt) -> int:
    return attempt.tries or attempt.number


def _owned(attempt: Attempt, using: str) -> Activity:
    """Return the parent, locked: an attempt that is not its owner any more must not give it children."""
    for row in lock_rows(Activity, [attempt.agent_id], ("status", "fence", "waiting_for", "metadata"), using):
        if row.status == Status.RUNNING and row.fence == attempt.fence and not row.is_parked:
            return row
    raise StaleAttempt(f"Activity {attempt.agent_id} does not belong to this attempt any more; it spawns nothing.")


def _found(attempt: Attempt, keys: Sequence[str], using: str) -> dict[str, Activity]:
    rows = Activity.objects.using(using).spawned_by(attempt.agent_id)
    if len(keys) <= MOST_KEYS:
        rows = rows.filter(spawn_key__in=keys)
    wanted = set(keys)
    return {key: row for row in rows.defer("result", "traceback", "usage") if (key := str(row.spawn_key)) in wanted}


def _check_same(one: Place, wanted: Activity, found: Activity) -> None:
    if found.agent_type != wanted.agent_type:
        raise SpawnMismatch(
            f"Child {one.key!r} of activity {found.parent_id} is a {found.agent_type!r}, but now a "
            f"{wanted.agent_type!r} was to be spawned in its place. Give each child a key of its own."
        )
    if one.is_numbered and not _is_same_context(one, wanted, found):
        raise SpawnMismatch(
            f"Child {one.key!r} of activity {found.parent_id} was spawned with the context {found.context!r:.200}, "
            f"but now with {wanted.context!r:.200}. A handler that runs again must spawn the same children in the "
            "same order: do what may turn out differently in a step or a child of its own, or give each child a key."
        )


def _is_same_context(one: Place, wanted: Activity, found: Activity) -> bool:
    """Whether the stored context, read by today's code, is the wanted one: its type may have got a field since."""
    if found.context == wanted.context:
        return True
    try:
        return one.definition.load_context(json.dumps(found.context)) == one.context
    except ValidationError:
        return False


def _insert(attempt: Attempt, new: list[Activity], using: str) -> None:
    try:
        insert(new, conf.ACTIVITY_MESSAGE_CREATE, push_on_commit)
    except IntegrityError as error:  # the parent's lock keeps others away, so this is another constraint
        raise StaleAttempt(f"Activity {attempt.agent_id} could not be given children: {error}") from error
    parents = Activity.objects.using(using).filter(agent_id=attempt.agent_id)
    parents.update(ties=F("ties").bitor(Ties.PARENT))


def _bring_back(attempt: Attempt, found: list[Activity], using: str) -> None:
    """Queue again what failed in an earlier try, and push what a crash may have kept from its queue."""
    failed = [row.agent_id for row in found if row.status in FAILED and row.spawned_in < _try(attempt)]
    if failed:
        applied = apply([Retry(agent_id=agent_id) for agent_id in failed])
        Activity.objects.using(using).filter(agent_id__in=failed).update(spawned_in=_try(attempt))
        push_on_commit([row for row in applied if isinstance(row, Activity)], again=True)
    if waiting := [row for row in found if row.status == Status.QUEUED]:
        push_on_commit(waiting, keep_place=True)
