"""Counters and histograms of all processes, stored in the server of the queue: fast to write, lost with its data.

A receiver of `changes_committed` adds up the changes in memory; every two seconds at most, one round trip adds the sums
to the values of the server. There are two sets: totals (for Prometheus), and one set per minute of the last two hours
(for charts).
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import threading
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any

from ..activity.transitions import AddUsage, Operation
from ..background import start_daemon_thread
from ..calls.operations import FinishCall
from ..conf import conf
from ..exceptions import QueueUnavailable
from ..forks import reset_after_fork
from ..models import Activity, ActivityLog, Status
from ..queues import get_queue
from ..signals import changes_committed, worker_stopped

logger = logging.getLogger(__name__)

FLUSH_INTERVAL = 2.0  # seconds
TOTAL = "total"
TOTAL_SECONDS = 400 * 86_400.0  # a year and a month without any activity
MINUTE_SECONDS = 2 * 3_600.0
MAX_MODELS = 50  # names of models that a process counts one by one, per task; the calls of all others are OTHER
OTHER = "other"
MAX_PENDING = 100_000  # fields kept while the server is unavailable; further fields are not counted

WAIT_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1_800.0, float("inf"))
"""Upper bounds of the wait histogram, in seconds."""
DURATION_BUCKETS = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, float("inf"))
"""Upper bounds of the duration histogram, in seconds."""

Amounts = dict[str, float]
_ENDED = frozenset({Status.COMPLETE, Status.ERROR, Status.CANCELED})


@lru_cache(maxsize=4_096)
def field(*parts: str | float) -> str:
    """Return the field name of a counter; the parts may contain any character."""
    return json.dumps(parts, ensure_ascii=False)


def parts(name: str) -> list[Any]:
    """Return the parts of a field name."""
    found: list[Any] = json.loads(name)
    return found


def minute_name(minute: int) -> str:
    """Return the name of the set of a minute, counted since 1970."""
    return f"minute:{minute}"


class Counting:
    """The sums of this process, flushed to the server from time to time. Thread-safe and fork-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self._pending: dict[str, dict[str, float]] = {}
        self._scheduled_in = 0  # id of the process whose thread will flush

    def add(self, amounts: Mapping[str, float], per_minute: Mapping[str, float]) -> None:
        """Add to the sums; does not block."""
        if not amounts and not per_minute:
            return
        name = minute_name(int(time.time() // 60))
        with self._lock:
            self._add(TOTAL, amounts)
            self._add(name, per_minute)
            if self._scheduled_in == os.getpid():
                return
            with suppress(RuntimeError):  # no thread can be started: the next call tries again
                start_daemon_thread("agentexec-metrics", self._flush_later)
                self._scheduled_in = os.getpid()

    def flush(self) -> None:
        """Add the sums to the values of the server, after a flush in progress; keep them if it is unavailable."""
        with self._flushing:
            self._flush()

    def _flush(self) -> None:
        with self._lock:
            pending, self._pending = self._pending, {}
            self._scheduled_in = 0
        if not pending:
            return
        totals = {TOTAL: pending.pop(TOTAL)} if TOTAL in pending else {}
        try:
            get_queue().increment_counters(totals, seconds=TOTAL_SECONDS)
            totals = {}
            get_queue().increment_counters(pending, seconds=MINUTE_SECONDS)
        except QueueUnavailable:
            with self._lock:
                for name, amounts in {**totals, **pending}.items():
                    self._add(name, amounts)
        except Exception:  # counting must not affect the activities
            logger.exception("Could not flush the counters.")

    def reset(self) -> None:
        """Drop the sums; for tests, and in a forked process."""
        self._lock, self._flushing = threading.Lock(), threading.Lock()
        self._pending = {}
        self._scheduled_in = 0

    def _add(self, name: str, amounts: Mapping[str, float]) -> None:
        known = self._pending.setdefault(name, defaultdict(float))
        for field_name, amount in amounts.items():
            if field_name in known or len(known) < MAX_PENDING:
                known[field_name] += amount

    def _flush_later(self) -> None:
        time.sleep(FLUSH_INTERVAL)
        self.flush()


counting = Counting()
_models: dict[str, set[str]] = {}
"""The models that this process counts by name, by task."""


def connect() -> None:
    """Connect the receivers; called when the app is ready."""
    changes_committed.connect(_count, Activity, dispatch_uid="agentexec.metrics")
    worker_stopped.connect(_flush, dispatch_uid="agentexec.metrics")
    reset_after_fork(counting.reset)
    atexit.register(counting.flush)


def _flush(**_: object) -> None:
    counting.flush()


def _count(changes: Iterable[tuple[Activity, ActivityLog | None, Operation | None]], **_: object) -> None:
    if not conf.METRICS:
        return
    totals: Amounts = defaultdict(float)
    minute: Amounts = defaultdict(float)
    for activity, line, operation in changes:
        task = activity.agent_type
        if isinstance(operation, AddUsage):
            _count_tokens(task, operation.usage, totals)
            if operation.cost is not None:  # of a run that is not recorded: the model is not known here
                totals[field("cost", task, OTHER)] += float(operation.cost)
        elif isinstance(operation, FinishCall):
            _count_tokens(task, operation.usage, totals)
            _count_calls(task, operation, totals)
        elif operation is None:
            totals[field("enqueued", task, activity.queue)] += 1
            minute[field("enqueued")] += 1
        elif line is None:
            continue
        elif line.status in _ENDED:  # not the status of the row, which all changes of a commit share
            _count_end(activity, task, str(line.status), totals, minute)
        elif activity.waited is not None:
            _count_start(activity, task, activity.waited, totals, minute)
    counting.add(totals, minute)


def _count_tokens(task: str, usage: Mapping[str, int], totals: Amounts) -> None:
    for kind, tokens in usage.items():
        totals[field("tokens", task, kind)] += tokens


def _count_calls(task: str, operation: FinishCall, totals: Amounts) -> None:
    for call in (*operation.new, *operation.changed):
        if not call.is_billed:
            continue
        model = _model_label(task, call.name)
        for kind, tokens in call.usage().items():
            totals[field("model_tokens", task, model, kind)] += tokens
        if call.cost is not None:
            totals[field("cost", task, model)] += float(call.cost)
        else:
            totals[field("unpriced_tokens", task, model)] += call.input_tokens + call.output_tokens


def _model_label(task: str, name: str) -> str:
    known = _models.setdefault(task, set())
    if name not in known and len(known) >= MAX_MODELS:
        return OTHER
    known.add(name)
    return name


def _count_start(activity: Activity, task: str, waited: float, totals: Amounts, minute: Amounts) -> None:
    activity.waited = None  # so that a later change of the same row in this batch does not count as a start
    bound = WAIT_BUCKETS[bisect_left(WAIT_BUCKETS, waited)]
    totals[field("wait", task, bound)] += 1
    totals[field("wait_sum", task)] += waited
    minute[field("wait", bound)] += 1


def _count_end(activity: Activity, task: str, status: str, totals: Amounts, minute: Amounts) -> None:
    totals[field("finished", task, activity.queue, status)] += 1
    if activity.started_at and activity.finished_at:
        lasted = max(0.0, (activity.finished_at - activity.started_at).total_seconds())
        totals[field("duration", task, DURATION_BUCKETS[bisect_left(DURATION_BUCKETS, lasted)])] += 1
        totals[field("duration_sum", task)] += lasted
    minute[field(status)] += 1
    minute[field("ended", activity.queue)] += 1
