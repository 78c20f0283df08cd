"""Rounds of the reconciler as the health check sees them, kept for a while in the queue's server."""

from __future__ import annotations

import math
import time
from contextlib import suppress

from ..conf import conf
from ..exceptions import QueueUnavailable
from ..queues import get_queue
from .metrics import field, parts

KEPT_SECONDS = 3_600.0
MAX_ERROR = 300  # characters of an error that are kept
MAX_MINUTES = 60  # that are read, however long the interval is
PATIENCE = 3  # intervals of the reconciler after which its failures, or a row that it does not push, are a fault
_OK, _FAILED = "ok", "failed"


def note_round(error: BaseException | None = None) -> None:
    """Record that the leading reconciler has finished a round, or why it could not. Never raises for the queue."""
    entry = field(_OK) if error is None else field(_FAILED, f"{type(error).__name__}: {error}".strip()[:MAX_ERROR])
    with suppress(QueueUnavailable):  # the health check finds this out by itself
        get_queue().increment_counters(
            {_name(time.time()): {entry: 1}}, seconds=max(KEPT_SECONDS, 4 * conf.RECONCILE_INTERVAL)
        )


def last_failure() -> str:
    """Return why the latest rounds of the reconciler failed; "" if one of them succeeded, or none is known.

    Pools of older releases record nothing. One round trip; raises `QueueUnavailable`.
    """
    now = time.time()
    # One minute more in each direction: the pool's clock may differ from this one's.
    minutes = range(-1, min(MAX_MINUTES, math.ceil(PATIENCE * conf.RECONCILE_INTERVAL / 60)) + 1)
    for entries in get_queue().read_counters([_name(now - 60 * minute) for minute in minutes]):
        found = [parts(entry) for entry in entries]
        if [_OK] in found:
            return ""
        for kind, *details in found:
            if kind == _FAILED:
                return " ".join(map(str, details))
    return ""


def _name(moment: float) -> str:
    return f"reconciler:{int(moment // 60)}"
