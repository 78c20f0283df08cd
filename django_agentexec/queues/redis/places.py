"""The places of messages in the scripts: a partition, whose name contains limits where claims take turns."""

from __future__ import annotations

from ..base import Message
from ..limits import SHARED, joined, parse_limits


def place_of(message: Message) -> tuple[str, str]:
    """Return the partition of a message with limits in the scripts, and the limits that are no part of its name."""
    partition, limits = message.partition, joined(message.limits)
    if partition.startswith(SHARED):
        return partition + limits, ""
    if partition == f"i:{message.agent_id}":
        return SHARED + limits, ""
    return partition, limits


def limit_keys_of(ticket: bytes) -> tuple[str, ...]:
    """Return the keys of the limits in a claim's meta: in the suffix of its worker, or in its partition."""
    if b"=" not in ticket:
        return ()
    suffix, partition = ticket.decode().split(" ", 4)[3:]
    text = partition if partition.startswith(("f:", "c:")) else suffix
    return tuple(limit.key for limit in parse_limits(text))
