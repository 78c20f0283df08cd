"""Results of the reconciler's runs for the health check, stored for a while in the server of the queue."""

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
MAX_MINUTES = 60  # minutes to read, for any length of the interval
MAX_MISSED_INTERVALS = 3  # of the reconciler, after which failures or rows that were not pushed fail the check
_OK, _FAILED = "ok", "failed"


def record_reconciliation(error: BaseException | None = None) -> None:
    """Record a successful run of the leading reconciler, or its error. Ignores an unavailable queue."""
    entry = field(_OK) if error is None else field(_FAILED, f"{type(error).__name__}: {error}".strip()[:MAX_ERROR])
    with suppress(QueueUnavailable):  # the health check has another probe for this
        get_queue().increment_counters(
            {_name(time.time()): {entry: 1}}, seconds=max(KEPT_SECONDS, 4 * conf.RECONCILE_INTERVAL)
        )


def last_failure() -> str:
    """Return the error of the latest runs of the reconciler; "" if one of them succeeded or none is recorded.

    Pools of older releases record nothing. One round trip. Raises `QueueUnavailable`.
    """
    now = time.time()
    # One more minute in each direction, since the clocks of the pool and of this process may differ.
    minutes = range(-1, min(MAX_MINUTES, math.ceil(MAX_MISSED_INTERVALS * conf.RECONCILE_INTERVAL / 60)) + 1)
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
