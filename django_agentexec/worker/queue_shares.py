"""The shares of a worker's queues in its free slots: all for the first queues in order, or by weight."""

from __future__ import annotations

from collections.abc import Sequence


class QueueShares:
    """Distributes free slots. Without weights a queue may take all slots that earlier queues leave.

    With weights, each slot goes to the queue that is furthest behind its share (smooth weighted round robin). Slots
    that a queue does not use go to the others.
    """

    def __init__(self, names: Sequence[str], weights: Sequence[int] = ()) -> None:
        self._names = names
        self._weights = dict(zip(names, weights, strict=True)) if weights else {}
        self._credits = dict.fromkeys(names, 0)

    def of(self, slots: int) -> dict[str, int]:
        """Return the slots that each queue may use first."""
        if not self._weights:
            return dict.fromkeys(self._names, slots)
        shares, total = dict.fromkeys(self._names, 0), sum(self._weights.values())
        for _ in range(slots):
            for name, weight in self._weights.items():
                self._credits[name] += weight
            chosen = max(self._names, key=self._credits.__getitem__)
            self._credits[chosen] -= total
            shares[chosen] += 1
        return shares
