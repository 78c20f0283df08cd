"""A producer of one release: `python -m tests.chaos.rolling_deploy.producer NUMBER SEED RATE SPECIALS`.

It enqueues as a producer of a chaos run does, and parents, pipelines and activities of lock keys that all producers
share. It cancels and retries activities of any producer. Producer 0 creates a schedule.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.chaos.producers import Producer, main

SHARED_KEYS = 5
TICK_INTERVAL = 2  # seconds between two runs of the schedule
RECENT = 30  # activities among which a cancel or a retry chooses
LONGEST_PAUSE = 0.6  # seconds of each of the two pauses of a handler
IDEMPOTENCY_WINDOW = 3  # seconds in which producers use the same idempotency key


class DeployProducer(Producer):
    """A sequence of enqueues, cancels and retries, drawn from a seed."""

    def __init__(self, number: int, seed: int, specials: int) -> None:
        super().__init__(number, seed, specials)
        from tests.chaos.rolling_deploy import agents

        self.special_agents = agents
        for name in ("repairable", "family", "family_sync"):
            self.tasks[name] = getattr(agents, name)
        self.tasks["relay"] = agents.Relay.task
        self.shared_number = 0
        self.ways: list[tuple[int, Callable[[], None]]] = [
            (20, lambda: self.one("plain")),
            (20, lambda: self.one(self.random.choice(["keyed", "keyed", "keyed_sync", "keyed_flaky"]))),
            (10, self.shared),
            (5, self.idempotent),
            (10, lambda: self.one("plain", delay=self.random.uniform(0.1, 8.0))),
            (4, lambda: self.one("plain", seconds=self.random.uniform(2.0, 5.0))),  # longer than the grace period
            (6, lambda: self.one("flaky", chance=0.4)),
            (3, lambda: self.one("failing")),
            (6, lambda: self.one("repairable")),
            (1, lambda: self.bulk("plain")),
            (1, lambda: self.bulk("keyed")),
            (3, self.rolled_back),
            (3, self.committed),
            (5, self.family),
            (5, lambda: self.one("relay")),
            (6, self.cancel),
            (6, self.retry),
        ]
        if number == 0:
            schedule()

    def job(self, task: str, **values: object) -> object:
        """Return a context like that of a chaos run, with longer work: so that a kill meets running activities."""
        values.setdefault("seconds", self.random.uniform(0, LONGEST_PAUSE))
        return super().job(task, **values)

    def family(self) -> None:
        """Enqueue a parent."""
        task = self.random.choice(["family", "family", "family_sync"])
        plain = self.job(task)
        job = self.special_agents.Family(name=plain.name, seconds=plain.seconds, width=self.random.randrange(1, 5))
        self.call([job], lambda: [self.tasks[task].enqueue(job)])

    def shared(self) -> None:
        """Enqueue an activity with a lock key that producers of both releases use."""
        self.shared_number += 1
        key = f"shared{self.random.randrange(SHARED_KEYS)}"
        name = f"{key}-p{self.number}-{self.shared_number:06}"
        job = self.agents.Job(name=name, key=key, seconds=self.random.uniform(0, 0.1))
        self.made += 1
        self.call([job], lambda: [self.tasks["keyed"].enqueue(job)])

    def idempotent(self) -> None:
        """Enqueue an activity that all producers enqueue, with an idempotency key: it exists once."""
        name = f"once-{int(time.time()) // IDEMPOTENCY_WINDOW}"
        job = self.agents.Job(name=name, seconds=0.1)
        self.made += 1
        self.call([job], lambda: [self.tasks["plain"].enqueue(job, idempotency_key=name)])

    def cancel(self) -> None:
        """Cancel one of the newest active activities, of any release."""
        from django_agentexec.models import Activity

        # The children of a canceled parent are canceled with it; a child by itself would let its parent fail.
        active = Activity.objects.filter(status__in=["queued", "running"], parent=None).exclude(agent_type="tick")
        self.recent.extend(map(str, active.order_by("-created_at").values_list("agent_id", flat=True)[:RECENT]))
        super().cancel()
        self.recent.clear()

    def retry(self) -> None:
        """Let one of the failed activities succeed, and retry it."""
        from django_agentexec import InvalidTransition, activity
        from django_agentexec.models import Activity
        from tests.chaos.observer import report

        failed = Activity.objects.filter(agent_type="repairable", status="error").order_by("-created_at")[:RECENT]
        if not (rows := list(failed.values_list("agent_id", "context"))):
            return
        agent_id, context = self.random.choice(rows)
        self.special_agents.is_repaired(context["name"]).touch()
        try:
            activity.retry(agent_id)
        except InvalidTransition:
            report("retry_refused", agent_id=str(agent_id))  # another producer has retried it
        else:
            report("retried", agent_id=str(agent_id))


def schedule() -> None:
    """Create the schedule of the run."""
    from django_celery_beat.models import IntervalSchedule

    from django_agentexec.schedules.models import AgentSchedule
    from tests.chaos.rolling_deploy.agents import TICK

    interval, _ = IntervalSchedule.objects.get_or_create(every=TICK_INTERVAL, period="seconds")
    AgentSchedule.objects.create(name="ticks", task=TICK, context={"name": TICK}, interval=interval)


if __name__ == "__main__":
    main(DeployProducer)
