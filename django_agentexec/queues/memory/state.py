"""The state of one queue of the in-memory backend: its places, and the moves between them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID

from .. import base
from ..limits import NO_LIMITS, SEPARATOR, SHARED, Limit, Limits, joined

PRIORITY_WEIGHT = 10**14


@dataclass(slots=True)
class Item:
    """An activity in one place of a queue."""

    agent_id: UUID
    home: str
    """The partition of its message."""
    priority: int
    sequence: int
    crashes: int
    limits: tuple[Limit, ...] = ()
    partition: str = ""
    """The partition in which it waits, or that its claim locks."""
    turn: int | None = None
    """Its turn among all partitions, in a shared partition without a fair key."""
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
    def is_shared(self) -> bool:
        """Whether it waits in a shared partition, unless it is a suspect."""
        return self.home.startswith(SHARED)

    @property
    def single(self) -> str:
        """The partition of this activity alone, as a claim or a suspect of a shared partition."""
        return f"c:{self.agent_id}{self.home}"

    def add_limits(self, limits: Iterable[Limit]) -> None:
        """Let it count against further limits."""
        known = {limit.key for limit in self.limits}
        self.limits += tuple(limit for limit in limits if limit.key not in known)
        if self.limits and self.home == f"i:{self.agent_id}":
            self.home = SHARED
        if self.is_shared:
            self.home = self.home.partition(SEPARATOR)[0] + joined(self.limits)

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
    overrides: Limits = NO_LIMITS
    slots: Counter[str] = field(default_factory=Counter)
    starts: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """The ends of the periods of recent starts, by the key of their limit."""

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
        if head.turn is not None:
            self.turns[partition] = head.is_suspect, head.priority * PRIORITY_WEIGHT + head.turn
            return
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
        others = [other for other in self.pending[item.home].values() if other.priority == item.priority]
        first = min(others, key=lambda other: other.place, default=item)
        return max(0, first.sequence - 1) if first.place < item.place else item.sequence

    def by_deadline(self) -> list[Item]:
        """Return the leased items, the next to expire first."""
        return sorted(self.leased.values(), key=lambda item: (item.deadline, str(item.agent_id)))

    def add_pending(self, item: Item) -> None:
        """Let an item wait in its partition."""
        item.worker = ""
        if item.is_shared and item.home[len(SHARED) :].startswith(SEPARATOR) and item.turn is None:
            self.turn += 1
            item.turn = self.turn
        item.partition = item.single if item.is_shared and item.is_suspect else item.home
        self.items[item.agent_id] = item
        self.pending[item.partition][item.agent_id] = item

    def add_delayed(self, item: Item, due: float) -> None:
        """Let an item wait until it is due."""
        item.worker, item.due, item.partition = "", due, item.home
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
        self.slots -= Counter(limit.key for limit in item.limits)

    def claim(self, partition: str, now: float) -> Item:
        """Claim the first item of a partition, and let a shared partition wait for its next turn."""
        item = self.head(partition)
        assert item is not None
        del self.pending[partition][item.agent_id]
        del self.turns[partition]
        self.fence = max(self.fence + 1, int(now * 1_000_000))
        if item.is_shared:
            item.partition = item.single
        self.locks[item.partition] = item.fence = self.fence
        self.slots.update(limit.key for limit in item.limits)
        for limit in map(self.effective, item.limits):
            if limit.count is not None:
                self.starts[limit.key].append(now + limit.period)
        self.leased[item.agent_id] = item
        return item

    def is_open(self, partition: str, now: float) -> bool:
        """Return whether the limits of a partition's head permit a claim."""
        return self.reopens(partition, now) == now

    def effective(self, limit: Limit) -> Limit:
        """Return the limit of a row with this key, or the limit itself."""
        return self.overrides.by_key.get(limit.key, limit)

    def reopens(self, partition: str, now: float) -> float | None:
        """Return when the limits of a partition's head permit a claim; None: at an end of another claim."""
        head, latest = self.head(partition), now
        for limit in map(self.effective, head.limits if head else ()):
            if limit.maximum is not None and self.slots[limit.key] >= limit.maximum:
                return None
            if limit.count is not None:
                self.starts[limit.key] = [end for end in self.starts[limit.key] if end > now]
                if len(self.starts[limit.key]) >= limit.count:
                    latest = max([latest, *self.starts[limit.key][:1]])
        return latest
