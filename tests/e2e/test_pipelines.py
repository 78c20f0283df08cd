"""Pipelines in real pools: kill -9 in every step and around every checkpoint, and at random."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import pytest

from django_agentexec import Status, get_result
from django_agentexec.models import Activity, ActivityLog, StepRun
from tests.e2e.journal import Journal
from tests.e2e.kills import SETTINGS, kill_at_random, plan_deaths, survived
from tests.support.activity_rows import all_ended, statuses
from tests.support.pool_process import pool, until
from tests.testapp.orchestration import DEATHS, STEPS, FivePipeline, State

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]

MOMENTS = ("start", "end", "uncommitted", "committed")


def assert_no_finished_step_ran_again(journal: Journal) -> None:
    """Check that no step started once its checkpoint was committed, nor once a later one had started."""
    finished = {
        f"{run.activity.context['name']}-{run.name}": run.finished_at.timestamp()
        for run in StepRun.objects.select_related("activity")
        if run.finished_at
    }
    latest: dict[str, int] = defaultdict(int)
    for found in journal.events("start"):
        name, _, step = found.name.rpartition("-")
        if step not in STEPS:
            continue  # a child
        assert found.at <= finished[found.name], f"{found.name} ran after its checkpoint"
        assert STEPS.index(step) >= latest[name], f"{found.name} ran after a later step"
        latest[name] = STEPS.index(step)


def test_a_death_in_each_step_and_around_each_checkpoint(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    plan_deaths(journal, [f"{step}:{moment}" for step in STEPS for moment in MOMENTS])
    monkeypatch.setenv(DEATHS, journal.path)
    handle = FivePipeline.enqueue(State(journal=journal.path, name="a"))

    # Twenty deaths in all: that it survives them shows that a checkpoint forgives those before it.
    with pool("--workers", "1", **{**SETTINGS, "MAX_CRASHES": 5}):
        result = get_result(handle, timeout=120)

    assert survived(journal) == []
    assert result.done == list(STEPS)
    assert_no_finished_step_ran_again(journal)
    # Its effect is repeated by the deaths before its checkpoint, and by none after it.
    assert Counter(journal.names("end")) == {f"a-{step}": 3 for step in STEPS}
    assert ActivityLog.objects.filter(status=Status.COMPLETE).count() == 1


class Feed:
    """Enqueues pipelines as long as there are few."""

    def __init__(self, journal: Journal, **work: Any) -> None:
        self.made = 0
        self._work = {"journal": journal.path, **work}

    def __call__(self) -> None:
        while Activity.objects.active().of_type("five_steps").count() < 4:
            FivePipeline.enqueue(State(name=f"p{self.made}", **self._work))
            self.made += 1


def test_pipelines_survive_random_kills(journal: Journal) -> None:
    feed = Feed(journal, seconds=0.3)

    with pool("--workers", "2", "--concurrency", "2", **SETTINGS) as process:
        kill_at_random(process, feed)
        until(all_ended, "the end of all", timeout=120)

    print(f"{feed.made} pipelines of 5 steps")
    assert statuses() == {Status.COMPLETE: feed.made}
    assert_no_finished_step_ran_again(journal)
    assert all(row.result["done"] == list(STEPS) for row in Activity.objects.all())
    assert ActivityLog.objects.filter(status=Status.COMPLETE).count() == feed.made


def test_no_child_of_a_step_runs_under_two_ids(journal: Journal) -> None:
    feed = Feed(journal, seconds=0.05, children=5)

    with pool("--workers", "2", "--concurrency", "4", **SETTINGS) as process:
        kill_at_random(process, feed)
        until(all_ended, "the end of all", timeout=180)

    print(f"{feed.made} pipelines, {feed.made * 25} children")
    assert statuses() == {Status.COMPLETE: feed.made * 26}
    ids: dict[str, set[str]] = defaultdict(set)
    for found in journal.events("end"):
        ids[found.name].add(found.agent_id)
    children = {f"p{n}-{step}-{child}" for n in range(feed.made) for step in STEPS for child in range(5)}
    assert children <= set(ids)
    assert {name for name, under in ids.items() if len(under) != 1} == set()
    assert_no_finished_step_ran_again(journal)
