"""The scheduler: a duty of every pool. It sleeps until the next due time, and runs what is due.

One of all schedulers leads and is exactly on time; the others look a moment later, and so take over from one that
died without waiting for its lead to end. That saves work and decides nothing: `firing` makes each run unique.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from datetime import datetime, timedelta
from typing import Any

from django.db import DatabaseError, InterfaceError
from django.db.models import Min, Q, QuerySet
from django.utils import timezone

from ..activity.store import database
from ..background import FIRST_PAUSE, PoolService
from ..conf import conf
from ..exceptions import QueueUnavailable
from ..queues import get_queue
from ..tasks import TaskDefinition, registry
from .firing import fire
from .history import prune
from .models import AgentSchedule
from .planning import refresh
from .sync import take_over_declarations
from .timing import as_stored, as_utc

logger = logging.getLogger(__name__)

BATCH = 100  # schedules that are read at once
STANDBY = timedelta(seconds=0.5)  # head start of the scheduler that leads
FOREIGN = timedelta(seconds=5)  # that a task which the code here does not know is left to others
PRUNE_EVERY = timedelta(minutes=10)
PAUSE_WHILE_BUSY = 0.1  # seconds until another look at what another scheduler has locked


class Scheduler(PoolService):
    """Runs `AgentSchedule`s. `clock` returns the present time; tests give their own, and their own tasks."""

    def __init__(
        self,
        holder: str,
        clock: Callable[[], datetime] = timezone.now,
        tasks: Iterable[TaskDefinition[..., Any]] = registry,
    ) -> None:
        super().__init__(holder)
        self._clock = clock
        self._tasks = tasks
        self._knows_the_code = False
        self._refreshed = self._pruned = datetime.min.replace(tzinfo=as_utc(clock()).tzinfo)

    def step(self) -> float:
        """Run what is due, and return the seconds until the next due time, or until a change is to be noticed."""
        if not self._knows_the_code:
            take_over_declarations(self._now())
            self._knows_the_code = True
        leads = self._leads()
        if leads:
            self._keep_house()
        return self._run_due(timedelta() if leads else STANDBY)

    def _keep_house(self) -> None:
        now = self._now()
        if _has_passed(timedelta(seconds=conf.SCHEDULER_INTERVAL), self._refreshed, now):
            refresh(now)
            self._refreshed = now
        if _has_passed(PRUNE_EVERY, self._pruned, now):
            prune()
            self._pruned = now

    def _run_due(self, delay: timedelta) -> float:
        """Run what was due `delay` ago, and return the seconds until it pays to look again."""
        started = self._now()
        passed_by: set[int] = set()  # that another scheduler has locked, or that the database refused
        pause = 0.0
        while ids := self._due(self._now() - delay, passed_by):
            for schedule_id in ids:
                if self.stopping or self._now() - started > timedelta(seconds=conf.SCHEDULER_INTERVAL):
                    return 0.0
                try:
                    if fire(schedule_id, self._now()):
                        continue
                    pause = pause or PAUSE_WHILE_BUSY
                except (DatabaseError, InterfaceError) as error:
                    logger.warning("Schedule %s has to wait: %s", schedule_id, error)
                    pause = FIRST_PAUSE
                except Exception:  # of one schedule, which must not stop the others
                    logger.exception("Schedule %s cannot run, and is tried again later.", schedule_id)
                    pause = FIRST_PAUSE
                passed_by.add(schedule_id)
        return pause or self._seconds_to_next(delay)

    def _due(self, moment: datetime, passed_by: Collection[int]) -> list[int]:
        """Return schedules that are due at `moment`, the longest due one first."""
        mine = self._own_tasks() | Q(next_run_at__lte=as_stored(moment - FOREIGN))
        rows = self._rows().filter(mine, next_run_at__lte=as_stored(moment)).exclude(pk__in=passed_by)
        return list(rows.order_by("next_run_at").values_list("pk", flat=True)[:BATCH])

    def _seconds_to_next(self, delay: timedelta) -> float:
        own = self._own_tasks()
        first = self._rows().aggregate(own=Min("next_run_at", filter=own), other=Min("next_run_at", filter=~own))
        times = [as_utc(first["own"]) + delay] if first["own"] else []
        times += [as_utc(first["other"]) + delay + FOREIGN] if first["other"] else []
        seconds = [(time - self._now()).total_seconds() for time in times]
        return min([*seconds, conf.SCHEDULER_INTERVAL])

    def _rows(self) -> QuerySet[AgentSchedule]:
        return AgentSchedule.objects.using(database()).filter(enabled=True, next_run_at__isnull=False)

    def _own_tasks(self) -> Q:
        """Those that this pool's code knows; during a deploy another pool's code may know others."""
        return Q(task__in=[definition.name for definition in self._tasks])

    def _leads(self) -> bool:
        """Whether this scheduler is the one that works ahead; all of them do while the queue is away."""
        try:
            return get_queue().try_acquire_leadership("scheduler", self.holder, 2 * conf.SCHEDULER_INTERVAL)
        except QueueUnavailable:
            return True

    def _now(self) -> datetime:
        return as_utc(self._clock())


def _has_passed(period: timedelta, since: datetime, now: datetime) -> bool:
    """Whether it is time again; also if the clock was put back, which must not mean a long wait."""
    return not timedelta() <= now - since < period
