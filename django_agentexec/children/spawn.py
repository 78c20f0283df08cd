"""Spawn: children that are found again when their parent runs again. Behind `Attempt.spawn`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Unpack
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import F
from pydantic import BaseModel

from ..activity.rerun import Retry
from ..activity.store import apply, database, insert
from ..bulk_sql import lock_rows
from ..conf import conf
from ..dispatch.push import push_on_commit, push_or_log
from ..exceptions import InvalidOption, SpawnMismatch, StaleAttempt
from ..models import FAILED_OR_CANCELED, Activity, HookFlag, Status
from ..registry import get_task
from ..serialization.comparison import Comparison
from ..tasks.children import Key, Keys
from ..tasks.options import BulkOptions
from ..tasks.run import Run
from ..validation import is_storable
from .passes import Pass

if TYPE_CHECKING:
    from ..tasks.attempt import Attempt
    from ..tasks.definition import AnyTask

MAX_SPAWN_KEY = 255  # characters; the column's size
MAX_KEYS = 500  # in one query; for more, all children are looked at


@dataclass(frozen=True, slots=True)
class Place:
    """What a child is known by, and what it is to do."""

    definition: AnyTask
    context: BaseModel
    key: str
    is_numbered: bool
    """Whether the key is the number of the call, so that the context must show whether it is the same child."""


def place(attempt: Attempt, own: Pass, task: str | AnyTask, context: BaseModel, key: str | None) -> Place:
    """Return the place of a child; numbers it, without a `key`. Raises `UnknownTask`, `InvalidOption`."""
    definition = get_task(task)
    if key is None:
        full = f"{attempt.scope}#{definition.name}:{own.numbers[definition.name]}"
        own.numbers[definition.name] += 1
        return Place(definition, context, _checked(full), is_numbered=True)
    return Place(definition, context, _checked(f"{attempt.scope}/{key}", key), is_numbered=False)


def places_of(
    attempt: Attempt, own: Pass, task: str | AnyTask, contexts: Sequence[BaseModel], keys: Keys
) -> list[Place]:
    """Return the places of several children; see `place`."""
    all_keys = [None] * len(contexts) if keys is None else keys
    return [place(attempt, own, task, context, key) for context, key in zip(contexts, all_keys, strict=True)]


def map_name(own: Pass, task: str | AnyTask) -> str:
    """Return what a call of `Attempt.map` is known by: the task and the number of the call. Raises `UnknownTask`."""
    name = get_task(task).name
    number = own.map_numbers[name]
    own.map_numbers[name] += 1
    return f"{name}*{number}"


def map_places(
    attempt: Attempt, task: str | AnyTask, contexts: Iterable[BaseModel], key: Key, name: str
) -> list[Place]:
    """Return the places of the children of a map. Raises `InvalidOption`."""
    definition = get_task(task)
    key_of = attrgetter(key) if isinstance(key, str) else key
    places = []
    for number, context in enumerate(contexts):
        own = str(number) if key_of is None else key_of(context)
        own = str(own) if isinstance(own, (int, UUID)) else own
        full = _checked(f"{attempt.scope}#{name}/{own}", own)
        places.append(Place(definition, context, full, is_numbered=False))
    return places


def _checked(full: str, key: object = "#") -> str:
    if not (isinstance(key, str) and key and is_storable(key)):
        raise InvalidOption(f"The key {key!r} of a child must be text with at least one character.")
    if len(full) > MAX_SPAWN_KEY:
        raise InvalidOption(
            f"The key {full[:80]!r} of a child has {len(full)} characters; {MAX_SPAWN_KEY} are allowed."
        )
    return full


def spawn_all(
    attempt: Attempt,
    own: Pass,
    places: Sequence[Place],
    *,
    in_order: bool = True,
    map_name: str | None = None,
    **options: Unpack[BulkOptions],
) -> list[Run[Any]]:
    """Return the children at these places, new or found, in one transaction. See `Attempt.spawn`.

    `in_order`: whether the handler itself has called, and not a task or thread of it. With `map_name`, these are all
    children of that map.
    """
    if not places and map_name is None:
        return []
    keys = [one.key for one in places]
    if len(set(keys)) < len(keys):
        raise InvalidOption(f"Children of one parent need different keys, but these are {keys!r:.500}.")
    wanted = [_row(attempt, one, options) for one in places]
    using = database()
    with transaction.atomic(using=using):
        parent = _owned(attempt, using)
        if "metadata" not in options:
            for row in wanted:
                row.metadata = parent.metadata
        own.load(parent, attempt.scope)
        found = _found(attempt, keys, using)
        for one, row in zip(places, wanted, strict=True):
            if one.key in found:
                _check_same(one, row, found[one.key])
        new = [row for row in wanted if row.spawn_key not in found]
        positions = own.spawn(attempt.agent_id, keys, [str(row.spawn_key) for row in new], in_order=in_order)
        for row, position in zip(new, positions, strict=True):
            row.spawn_position = position
        if map_name is not None:
            own.maps[map_name] = len(places)
        if new:
            _insert(attempt, new)
        is_looser = _bring_back(attempt, own, list(found.values()), using)
        if new or is_looser or map_name is not None:
            _save_record(attempt, own, parent, using, has_children=bool(new))
    return [
        Run.of(found[one.key], created=False) if one.key in found else Run.of(row)
        for one, row in zip(places, wanted, strict=True)
    ]


def recorded_map(attempt: Attempt, own: Pass, name: str, *, in_order: bool = True) -> list[Run[Any]] | None:
    """Return the children of a map that an earlier pass has recorded; None if none has.

    Raises `SpawnMismatch` if some of them were deleted, `StaleAttempt` if this attempt has lost its activity.
    """
    using = database()
    with transaction.atomic(using=using):
        parent = _owned(attempt, using)
        own.load(parent, attempt.scope)
        prefix = f"{attempt.scope}#{name}/"
        keys = [key for key in own.children if key.startswith(prefix)]
        size = own.maps.get(name)
        if size is None or (size and not keys):
            return None
        if len(keys) < size:
            raise SpawnMismatch(
                f"Activity {attempt.agent_id} gathers {size} children that it has spawned by one map, but "
                f"{size - len(keys)} of them have been deleted. Retry it from scratch."
            )
        own.spawn(attempt.agent_id, keys, [], in_order=in_order)
        found = _found(attempt, keys, using)
        if _bring_back(attempt, own, list(found.values()), using):
            _save_record(attempt, own, parent, using, has_children=False)
    return [Run.of(found[key], created=False) for key in keys]


def _row(attempt: Attempt, one: Place, options: BulkOptions) -> Activity:
    # A lock key may be made of metadata, which is the parent's by default.
    own: BulkOptions = {"metadata": attempt.metadata, **options}
    (row,) = one.definition.new_rows([one.context], **own)
    row.parent_id, row.spawn_key, row.spawn_generation = attempt.agent_id, one.key, _try(attempt)
    row.hook_flags = HookFlag.CHILD
    return row


def _try(attempt: Attempt) -> int:
    return attempt.tries or attempt.number


def _owned(attempt: Attempt, using: str) -> Activity:
    """Return the parent, locked: an attempt that is not its owner any more must not give it children."""
    names = ("status", "fence", "blocking_child_id", "metadata", "hook_flags", "fan_out")
    for row in lock_rows(Activity, [attempt.agent_id], names, using):
        if row.status == Status.RUNNING and row.fence == attempt.fence and not row.is_suspended:
            return row
    raise StaleAttempt(f"Activity {attempt.agent_id} does not belong to this attempt any more; it spawns nothing.")


def _found(attempt: Attempt, keys: Sequence[str], using: str) -> dict[str, Activity]:
    rows = Activity.objects.using(using).spawned_by(attempt.agent_id)
    if not keys:
        return {}
    if len(keys) <= MAX_KEYS:
        rows = rows.filter(spawn_key__in=keys)
    wanted = set(keys)
    return {key: row for row in rows.defer("result", "traceback", "usage") if (key := str(row.spawn_key)) in wanted}


def _check_same(one: Place, wanted: Activity, found: Activity) -> None:
    if found.agent_type != wanted.agent_type:
        raise SpawnMismatch(
            f"Child {one.key!r} of activity {found.parent_id} is a {found.agent_type!r}, but now a "
            f"{wanted.agent_type!r} is to be spawned in its place. A handler that runs again must spawn the same "
            "children in the same order; two children of one parent need different keys."
        )
    if one.is_numbered and not _is_same_context(one, wanted, found):
        raise SpawnMismatch(
            f"Child {one.key!r} of activity {found.parent_id} was spawned with the context {found.context!r:.200}, "
            f"but now with {wanted.context!r:.200}. A handler that runs again must spawn the same children in the "
            "same order. Where they come from data that changes meanwhile, use attempt.map(task, contexts), which "
            "records the list in the first pass, or read the data in a separate step or child."
        )


def _is_same_context(one: Place, wanted: Activity, found: Activity) -> bool:
    """Return whether the stored context is the wanted context for today's code: its type may have a new field."""
    if found.context == wanted.context:
        return True
    try:
        loaded = one.definition.load_context(json.dumps(found.context))
    except Exception:  # noqa: BLE001  # a model's validators may raise anything
        return False
    return Comparison().first_difference(one.context, loaded) is None


def _insert(attempt: Attempt, new: list[Activity]) -> None:
    try:
        insert(new, conf.ACTIVITY_MESSAGE_CREATE, push_or_log)
    except IntegrityError as error:  # the parent's lock keeps others away, so this is another constraint
        raise StaleAttempt(f"Activity {attempt.agent_id} could not be given children: {error}") from error


def _save_record(attempt: Attempt, own: Pass, parent: Activity, using: str, *, has_children: bool) -> None:
    """Store on the (locked) parent what its next pass has to know."""
    values: dict[str, Any] = {"fan_out": {**(parent.fan_out or {}), attempt.scope: own.entry()}}
    if has_children:
        values["hook_flags"] = F("hook_flags").bitor(HookFlag.PARENT)
    Activity.objects.using(using).filter(agent_id=attempt.agent_id).update(**values)


def _bring_back(attempt: Attempt, own: Pass, found: list[Activity], using: str) -> bool:
    """Queue again what failed in an earlier try, and push what a crash may have kept from its queue.

    Returns whether what later passes must spawn has changed by that.
    """
    failed = [
        row.agent_id
        for row in found
        if row.status in FAILED_OR_CANCELED and not row.is_final and row.spawn_generation < _try(attempt)
    ]
    if failed:
        applied = apply([Retry(agent_id=agent_id, by_parent=True) for agent_id in failed])
        Activity.objects.using(using).filter(agent_id__in=failed).update(spawn_generation=_try(attempt))
        push_on_commit([row for row in applied if isinstance(row, Activity)], requeue_running=True)
    if waiting := [row for row in found if row.status == Status.QUEUED]:
        push_on_commit(waiting, by_creation_time=True)
    return bool(failed) and own.allow_differences()
