"""The state of one queue of the in-memory backend: its places, and the moves between them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID

from .. import base

PRIORITY_WEIGHT = 10**14


@dataclass(slots=True)
class Item:
    """An activity in one place of a queue."""

    agent_id: UUID
    partition: str
    priority: int
    sequence: int
    crashes: int
    expired_leases: list[int] = field(default_factory=list)
    refunded: int = 0
    due: float = 0.0
    worker: str = ""
    fence: int = 0
    deadline: float = 0.0
    canceled: bool = False
    again: base.Message | None = None

    @property
    def is_suspect(self) -> bool:
        """Whether a process died while it ran this activity, or its lease expired."""
        return self.crashes > 0 or bool(self.expired_leases)

    @property
    def place(self) -> tuple[int, int, str]:
        """The sort key within its partition."""
        return self.priority, self.sequence, str(self.agent_id)


@dataclass(slots=True)
class State:
    """One queue. An item is in exactly one of `pending` (by partition), `delayed` and `leased`."""

    items: dict[UUID, Item] = field(default_factory=dict)
    pending: dict[str, dict[UUID, Item]] = field(default_factory=lambda: defaultdict(dict))
    delayed: dict[UUID, Item] = field(default_factory=dict)
    leased: dict[UUID, Item] = field(default_factory=dict)
    locks: dict[str, int] = field(default_factory=dict)
    turns: dict[str, tuple[bool, int]] = field(default_factory=dict)
    dead: set[UUID] = field(default_factory=set)
    turn: int = 0
    sequence: int = 0
    fence: int = 0

    def head(self, partition: str) -> Item | None:
        """Return the first pending item of a partition."""
        return min(self.pending[partition].values(), key=lambda item: item.place, default=None)

    def offer(self, partition: str) -> None:
        """Place a partition in the ring that its head and its lock demand."""
        head = self.head(partition)
        if partition in self.locks or head is None:
            self.turns.pop(partition, None)
            return
        self.turn += 1
        score, is_suspect = head.priority * PRIORITY_WEIGHT + self.turn, head.is_suspect
        was_suspect, turn = self.turns.get(partition, (is_suspect, score))
        # A partition that moves to the other ring is appended at its end.
        self.turns[partition] = is_suspect, min(turn, score) if was_suspect is is_suspect else score

    def offer_all(self, partitions: Iterable[str]) -> None:
        """Offer each of these partitions once, in the order of their first occurrence."""
        for partition in dict.fromkeys(partitions):
            self.offer(partition)

    def front_of(self, item: Item) -> int:
        """Return a sequence that places `item` before all others of its partition and priority."""
        others = [other for other in self.pending[item.partition].values() if other.priority == item.priority]
        first = min(others, key=lambda other: other.place, default=item)
        return max(0, first.sequence - 1) if first.place < item.place else item.sequence

    def by_deadline(self) -> list[Item]:
        """Return the leased items, the next to expire first."""
        return sorted(self.leased.values(), key=lambda item: (item.deadline, str(item.agent_id)))

    def add_pending(self, item: Item) -> None:
        """Let an item wait in its partition."""
        item.worker = ""
        self.items[item.agent_id] = item
        self.pending[item.partition][item.agent_id] = item

    def add_delayed(self, item: Item, due: float) -> None:
        """Let an item wait until it is due."""
        item.worker, item.due = "", due
        self.items[item.agent_id] = self.delayed[item.agent_id] = item

    def remove(self, item: Item) -> None:
        """Remove an item from its place."""
        del self.items[item.agent_id]
        self.delayed.pop(item.agent_id, None)
        self.leased.pop(item.agent_id, None)
        self.pending[item.partition].pop(item.agent_id, None)
        self.turns.pop(item.partition, None)

    def unlock(self, item: Item) -> None:
        """End a lease and free its partition."""
        del self.locks[item.partition]
        self.remove(item)
