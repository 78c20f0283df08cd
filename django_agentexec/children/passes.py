"""Passes: each run of a handler, or of a pipeline's step, from its beginning. All must spawn the same children.

A handler that waits for children runs again when they have ended. If it then spawned other children than before, such
as those that a query still finds, it would gather results that are not those of its work. So the place of each child
is stored with it, and with the parent how many there were at each `gather`, per scope (the step, or "" outside of
pipelines), in `Activity.fan_out`:

    {"": {"waits": [18, 19], "maps": {"research:0": 18}, "is_open": false, "bound": null}}

A pass compares what it spawns with that, as far as the order of its calls is certain: that of the task, or the thread,
in which the handler runs. What its other tasks and threads spawn is compared as a set, and what they gather at the end.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from ..activity.store import database
from ..exceptions import SpawnMismatch
from ..models import Activity, HookFlag

MAX_NAMED = 5  # keys of children in a message


@dataclass(frozen=True, slots=True)
class Known:
    """A child of an earlier pass."""

    agent_id: UUID
    position: int | None
    """From 0; None for a child of a release that did not store it."""


@dataclass(eq=False)
class Pass:
    """The children of one pass, compared with the record of earlier passes."""

    children: dict[str, Known] = field(default_factory=dict)
    """The children of earlier passes by key, in order."""
    waits: list[int] = field(default_factory=list)
    """How many children there were at each gather of earlier passes."""
    may_differ: bool = False
    """Whether the children after these gathers may differ from pass to pass; stored as `is_open`."""
    required_count: int | None = None
    """How many children of earlier passes, in order, this pass has to spawn; None: all. Stored as `bound`."""
    maps: dict[str, int] = field(default_factory=dict)
    """The sizes of recorded maps."""
    seen: dict[str, None] = field(default_factory=dict)
    """The keys that this pass has spawned, new or found, in order."""
    gathers: list[int] = field(default_factory=list)
    """How many children this pass had spawned at each of its gathers."""
    numbers: Counter[str] = field(default_factory=Counter)
    """How many children without a key of their own each task has."""
    map_numbers: Counter[str] = field(default_factory=Counter)
    next_position: int = 0
    refilled: set[int] = field(default_factory=set)
    """The positions of deleted children that this pass has spawned again."""
    is_loaded: bool = False
    is_ordered: bool = True
    """Whether all children were spawned in the handler's own task or thread."""
    _strand: object = None

    # Where calls come from

    def enter(self) -> None:
        """Note that the current task, or thread, is the handler's own."""
        self._strand = _current_strand()

    def is_in_order(self) -> bool:
        """Return whether the caller is the handler itself, so that its calls come in the same order in each pass."""
        if self._strand is None:  # a direct call, as in tests
            self.enter()
        return self._strand == _current_strand()

    # The record

    def load(self, parent: Activity, scope: str) -> None:
        """Read what earlier passes have left in a scope, once. `parent` has `hook_flags` and `fan_out`."""
        if self.is_loaded:
            return
        if parent.hook_flags & HookFlag.PARENT:
            rows = Activity.objects.using(database()).spawned_by(parent.agent_id)
            found = [
                (str(key), Known(agent_id, position))
                for agent_id, key, position in rows.values_list("agent_id", "spawn_key", "spawn_position")
                if str(key).startswith((f"{scope}#", f"{scope}/"))
            ]
            found.sort(key=lambda one: (one[1].position is not None, one[1].position, one[1].agent_id))
            self.children = dict(found)
        entry: Mapping[str, Any] = (parent.fan_out or {}).get(scope, {})
        self.maps = dict(entry.get("maps", {}))
        if self.children:  # otherwise an older release has taken them away, and left the entry
            self.waits, self.may_differ = list(entry.get("waits", [])), bool(entry.get("is_open"))
            self.required_count = entry.get("bound")
        positions = [known.position for known in self.children.values() if known.position is not None]
        self.next_position = max(positions, default=-1) + 1
        self.is_loaded = True

    def entry(self) -> dict[str, Any]:
        """Return the record for the next pass."""
        waits = self.gathers if len(self.gathers) > len(self.waits) else self.waits
        return {
            "waits": list(waits),
            "maps": dict(self.maps),
            "is_open": self.may_differ,
            "bound": self.required_count,
        }

    def required_keys(self, limit: int | None = None) -> list[str]:
        """Return the keys of earlier passes that this pass has to spawn (the first `limit` of them), in order."""
        limits = [each for each in (limit, self.required_count) if each is not None]
        return [
            key
            for key, known in self.children.items()
            if known.position is not None and all(known.position < each for each in limits)
        ]

    # What this pass does

    def spawn(self, parent: UUID, keys: Sequence[str], new: Sequence[str], *, in_order: bool) -> list[int]:
        """Note spawned children, and return the positions of those that are new.

        Raises `SpawnMismatch` for more children before a gather than earlier passes had there.
        """
        self.is_ordered = self.is_ordered and in_order
        free = self._free_positions(parent, new) if in_order else []
        required = set(self.required_keys())
        requires_all = self.required_count is None
        self.seen.update((key, None) for key in keys if key in required or (requires_all and key not in self.children))
        first, self.next_position = self.next_position, self.next_position + len(new) - len(free)
        return [*free, *range(first, self.next_position)]

    def _free_positions(self, parent: UUID, new: Sequence[str]) -> list[int]:
        """Return the positions of deleted children that the new children take over, before a recorded gather."""
        limit = self._limit()
        if limit is None or not new:
            return []
        taken = {known.position for known in self.children.values()} | self.refilled
        free = [position for position in range(limit) if position not in taken][: len(new)]
        if len(free) < len(new):
            raise _mismatch(parent, self.required_keys(limit), [*self.seen, *new])
        self.refilled.update(free)
        return free

    def _limit(self) -> int | None:
        """Return how many children earlier passes had at the next gather, or None if that is not known."""
        number = len(self.gathers)
        return self.waits[number] if number < len(self.waits) else None

    def allow_differences(self) -> bool:
        """Let the children after the next gather differ, since a child on which they may depend runs again.

        Return whether that changes the record.
        """
        limit = self._limit()
        if limit is None or len(self.required_keys(limit)) == len(self.required_keys()):
            return False
        self.required_count, self.waits, self.may_differ = limit, self.waits[: len(self.gathers) + 1], True
        return True

    def gather(self, parent: UUID, *, in_order: bool) -> None:
        """Note a gather of named children. Raises `SpawnMismatch` if the pass differs from earlier ones up to it."""
        if not in_order:
            self.waits, self.may_differ = list(self.gathers), True
            return
        limit = self._limit()
        expected, seen = self.required_keys(limit), list(self.seen)
        if limit is None:
            is_same = self.may_differ or self.seen.keys() >= set(expected)
            seen = [key for key in seen if key in set(expected)]  # later ones are new
        else:
            is_same = self._is_same(expected, seen, limit)
        if not is_same:
            raise _mismatch(parent, expected, seen)
        self._note_gather()

    def _is_same(self, expected: list[str], seen: list[str], limit: int) -> bool:
        """Return whether the pass has spawned all children of earlier passes, in order, also those deleted since."""
        found = [key for key in seen if key in set(expected)]
        if len(found) < len(expected) or len(seen) > max(limit, len(expected)):
            return False
        return found == expected or not self.is_ordered

    def gather_all(self, *, in_order: bool) -> list[UUID] | None:
        """Note a gather of all children, and return the ids that it means; None: all that exist by now."""
        if not in_order:
            self.waits, self.may_differ = list(self.gathers), True
        limit = self._limit()
        expected = self.required_keys(limit)
        self.seen = dict.fromkeys([*expected, *self.seen])
        self._note_gather()
        if limit is None:
            return None
        return [known.agent_id for known in self.children.values() if known.position is None or known.position < limit]

    def _note_gather(self) -> None:
        if len(self.gathers) < len(self.waits) or not self.may_differ:
            self.gathers.append(len(self.seen))

    def finish(self, parent: UUID) -> None:
        """Raise `SpawnMismatch` if the pass ends without children that earlier passes have spawned.

        Not where none has gathered: what such a handler returns does not depend on its children.
        """
        if not (self.waits or self.gathers or self.may_differ):
            return
        expected = self.required_keys()
        if not self.seen.keys() >= set(expected):
            raise _mismatch(parent, expected, list(self.seen))


def _current_strand() -> object:
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    return task or threading.get_ident()


def _mismatch(parent: UUID, expected: Sequence[str], seen: Sequence[str]) -> SpawnMismatch:
    missing = [key for key in expected if key not in seen]
    added = [key for key in seen if key not in expected]
    differences = []
    if missing:
        differences.append(f"{len(missing)} of {len(expected)} are missing ({_named(missing)})")
    if added:
        differences.append(f"{len(added)} are additional ({_named(added)})")
    if not differences:
        was, now = next(pair for pair in zip(expected, seen, strict=True) if pair[0] != pair[1])
        differences.append(f"the order differs ({now!r} is where {was!r} was)")
    return SpawnMismatch(
        f"Activity {parent} runs again, but does not spawn the children that it spawned before: "
        f"{', '.join(differences)}. Its result would not be that of all its children. A handler that runs again must "
        "spawn the same children in the same order. Where they come from data that changes meanwhile, use "
        "attempt.map(task, contexts), which records the list in the first pass, or read the data in a separate step or "
        "child, whose result is stored."
    )


def _named(keys: Iterable[str]) -> str:
    keys = list(keys)
    more = f" and {len(keys) - MAX_NAMED} more" if len(keys) > MAX_NAMED else ""
    return ", ".join(map(repr, keys[:MAX_NAMED])) + more
