"""The scheduler: a service of every pool that sleeps until the next due time and runs due schedules.

One scheduler leads and runs schedules exactly on time. The others check slightly later, so they take over from a
leader that died without waiting for its leadership to expire. Leadership only saves work: `firing` makes each run
unique.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from datetime import datetime, timedelta

from django.db import DatabaseError, InterfaceError
from django.db.models import Min, Q, QuerySet
from django.utils import timezone

from ..activity.store import database
from ..background import FIRST_PAUSE, PoolService
from ..conf import conf
from ..exceptions import QueueUnavailable
from ..queues import get_queue
from ..tasks import AnyTask, registry
from .firing import fire, prune_runs
from .models import AgentSchedule
from .planning import refresh
from .sync import sync_declarations
from .timing import as_stored, as_utc

logger = logging.getLogger(__name__)

BATCH_SIZE = 100  # schedules per query
STANDBY_DELAY = timedelta(seconds=0.5)  # of schedulers that do not lead
UNKNOWN_TASK_DELAY = timedelta(seconds=5)  # for other pools to run tasks that are not registered in this process
PRUNE_INTERVAL = timedelta(minutes=10)
LOCKED_PAUSE = 0.1  # seconds until schedules that another scheduler has locked are checked again


class Scheduler(PoolService):
    """The service that runs `AgentSchedule`s. `clock` returns the current time; tests replace it and `tasks`."""

    def __init__(
        self,
        holder: str,
        clock: Callable[[], datetime] = timezone.now,
        tasks: Iterable[AnyTask] = registry,
    ) -> None:
        super().__init__(holder)
        self._clock = clock
        self._tasks = tasks
        self._has_synced_code = False
        self._refreshed = self._pruned = datetime.min.replace(tzinfo=as_utc(clock()).tzinfo)

    def step(self) -> float:
        """Run due schedules and return the seconds until the next due time, at most `SCHEDULER_INTERVAL`."""
        if not self._has_synced_code:
            sync_declarations(self._now())
            self._has_synced_code = True
        leads = self._leads()
        if leads:
            self._run_maintenance()
        return self._run_due(timedelta() if leads else STANDBY_DELAY)

    def _run_maintenance(self) -> None:
        now = self._now()
        if _has_passed(timedelta(seconds=conf.SCHEDULER_INTERVAL), self._refreshed, now):
            refresh(now)
            self._refreshed = now
        if _has_passed(PRUNE_INTERVAL, self._pruned, now):
            prune_runs()
            self._pruned = now

    def _run_due(self, delay: timedelta) -> float:
        """Run schedules that were due `delay` ago, and return the seconds until the next check."""
        started = self._now()
        skipped: set[int] = set()  # locked by another scheduler, or failed
        pause = 0.0
        while ids := self._due(self._now() - delay, skipped):
            for schedule_id in ids:
                if self.stopping or self._now() - started > timedelta(seconds=conf.SCHEDULER_INTERVAL):
                    return 0.0
                try:
                    if fire(schedule_id, self._now()):
                        continue
                    pause = pause or LOCKED_PAUSE
                except (DatabaseError, InterfaceError) as error:
                    logger.warning("Schedule %s is postponed: %s", schedule_id, error)
                    pause = FIRST_PAUSE
                except Exception:  # an error of one schedule must not stop the others
                    logger.exception("Schedule %s cannot run and is retried later.", schedule_id)
                    pause = FIRST_PAUSE
                skipped.add(schedule_id)
        return pause or self._seconds_to_next(delay)

    def _due(self, moment: datetime, skipped: Collection[int]) -> list[int]:
        """Return the ids of schedules that are due at `moment`, the earliest due time first."""
        eligible = self._own_tasks() | Q(next_run_at__lte=as_stored(moment - UNKNOWN_TASK_DELAY))
        rows = self._rows().filter(eligible, next_run_at__lte=as_stored(moment)).exclude(pk__in=skipped)
        return list(rows.order_by("next_run_at").values_list("pk", flat=True)[:BATCH_SIZE])

    def _seconds_to_next(self, delay: timedelta) -> float:
        own = self._own_tasks()
        first = self._rows().aggregate(own=Min("next_run_at", filter=own), other=Min("next_run_at", filter=~own))
        times = [as_utc(first["own"]) + delay] if first["own"] else []
        times += [as_utc(first["other"]) + delay + UNKNOWN_TASK_DELAY] if first["other"] else []
        seconds = [(time - self._now()).total_seconds() for time in times]
        return min([*seconds, conf.SCHEDULER_INTERVAL])

    def _rows(self) -> QuerySet[AgentSchedule]:
        return AgentSchedule.objects.using(database()).filter(enabled=True, next_run_at__isnull=False)

    def _own_tasks(self) -> Q:
        """Match schedules whose tasks are registered here; during a deploy, other pools may have other tasks."""
        return Q(task__in=[definition.name for definition in self._tasks])

    def _leads(self) -> bool:
        """Return whether this scheduler leads. Every scheduler leads while the queue is unavailable."""
        try:
            return get_queue().try_acquire_leadership("scheduler", self.holder, 2 * conf.SCHEDULER_INTERVAL)
        except QueueUnavailable:
            return True

    def _now(self) -> datetime:
        return as_utc(self._clock())


def _has_passed(period: timedelta, since: datetime, now: datetime) -> bool:
    """Return whether `period` has passed since `since`. Also true if the clock was put back, to avoid a long wait."""
    return not timedelta() <= now - since < period
