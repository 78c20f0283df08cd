"""The judgment of a rolling deploy finds violations: each promise is broken by a constructed deploy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.chaos.histories import GOOD, enqueued, event, fault, healthy, past, ran
from tests.chaos.history import Row
from tests.chaos.rolling_deploy.judgment import PROMISES, Deploy, Tick, both_releases_work, judge
from tests.chaos.rolling_deploy.trial import differences

TICK = Tick(10.0, "due", "id-tick", "complete")
SOUND = Deploy(healthy(), effects=["id-1 5 p0-1"], ticks=[TICK], logs={"pool-0.log": "10:00:00 INFO    [1] Ready.\n"})
BOTH = {"old": range(1), "new": range(1, 2)}
DEATH = "10:00:01 ERROR   [1] Worker process host-1 (77) ended by SIGKILL after 3.0 s.\n"


def the_finding(promise: str, deploy: Deploy) -> str:
    (finding,) = PROMISES[promise](deploy)
    return finding


def of_rows(*rows: Row, **values: Any) -> Deploy:
    return replace(SOUND, history=past(*values.pop("events", []), rows=rows), **values)


def test_a_sound_deploy_has_no_findings() -> None:
    assert not any(judge(SOUND).values())


def test_an_error_of_a_task_that_does_not_fail_is_found() -> None:
    deploy = of_rows(replace(GOOD, status="error", error="no such column"))

    assert "is error, not complete: no such column" in the_finding("every task ends as expected", deploy)


def test_a_failing_task_that_completes_is_found() -> None:
    deploy = of_rows(replace(GOOD, task="failing"))

    assert "is complete, not error" in the_finding("every task ends as expected", deploy)


def test_a_repaired_activity_that_remains_in_error_is_found() -> None:
    row = replace(GOOD, task="repairable", status="error", error="p0-1 fails as planned")

    assert not list(PROMISES["every task ends as expected"](of_rows(row)))
    deploy = of_rows(row, events=[event(3, "retried")])
    assert "is error, not complete" in the_finding("every task ends as expected", deploy)


def test_a_child_is_canceled_with_its_parent_only() -> None:
    child = replace(GOOD, agent_id="id-2", name="p0-1-c0", status="canceled")
    deploy = of_rows(child, events=[event(1, "cancels", "", "id-1")])

    assert "is canceled, not complete" in the_finding("every task ends as expected", deploy)
    findings = judge(replace(deploy, parents={"id-2": "id-1"}))
    assert findings["every task ends as expected"] == []


def test_two_effects_of_one_fence_are_found() -> None:
    deploy = replace(SOUND, effects=["id-1 5 p0-1"] * 2)

    assert "has 2 effects of fence 5" in the_finding("no result twice", deploy)


def test_a_completed_activity_without_its_effect_is_found() -> None:
    assert "complete with fence 5, and has effects of []" in the_finding("no result twice", replace(SOUND, effects=[]))


def test_a_second_effect_is_excused_by_a_death_only() -> None:
    effects = ["id-1 4 p0-1", "id-1 5 p0-1"]
    runs = [*ran(1, 2, fence=4, pid=3), *ran(4, 5, fence=5, pid=4)]
    deploy = of_rows(GOOD, events=runs, effects=effects)

    assert "has an effect of fence 4, which lives on" in the_finding("no result twice", deploy)
    died = of_rows(GOOD, events=[*runs, event(3, "gone", "", "", pid=3)], effects=effects)
    assert not list(PROMISES["no result twice"](died))


def test_a_step_that_runs_after_a_later_step_is_found() -> None:
    steps = [event(at, "step", detail=detail) for at, detail in enumerate(["0", "1", "1", "2", "1"])]

    assert "step 1 began after step 2" in the_finding("a finished step does not run again", of_rows(GOOD, events=steps))


def test_faults_of_the_schedule_are_found() -> None:
    promise = "a due time runs once"

    assert the_finding(promise, replace(SOUND, ticks=[])) == "the schedule was never due"
    assert "10.000 was due 2 times" in the_finding(promise, replace(SOUND, ticks=[TICK, replace(TICK, agent_id="b")]))
    assert "id-tick has 2 due times" in the_finding(promise, replace(SOUND, ticks=[TICK, replace(TICK, due=12.0)]))
    assert "is error" in the_finding(promise, replace(SOUND, ticks=[replace(TICK, status="error")]))
    assert "enqueued by no due time" in the_finding(promise, replace(SOUND, unscheduled=["id-9"]))
    assert not list(PROMISES[promise](replace(SOUND, ticks=[TICK, Tick(12.0, "skipped", "", "")])))


def test_errors_in_a_log_are_found_but_for_killed_workers_and_planned_errors() -> None:
    promise = "logs are quiet"
    failure = "10:00:02 ERROR   [1] Attempt 1 of plain id-1 failed: ProgrammingError: column missing\nTraceback (most\n"
    logs = {"pool-0.log": DEATH + failure + "10:00:03 INFO    [1] Stopped.\n"}
    killed = past(fault("kill_worker", 1, 1, pid=77))

    assert "column missing" in the_finding(promise, replace(SOUND, history=killed, logs=logs))
    assert len(list(PROMISES[promise](replace(SOUND, logs=logs)))) == 2
    planned = {"pool-0.log": failure.replace("column missing", "p0-1 fails as planned")}
    assert not list(PROMISES[promise](replace(SOUND, logs=planned)))
    assert the_finding(promise, replace(SOUND, logs={"migrate.log": "Traceback (most\n"})).startswith("migrate.log")
    assert "locked" in the_finding(promise, replace(SOUND, logs={"producer-0.log": "Producer 0: locked\n"}))


def test_a_release_that_executes_nothing_of_the_other_is_found() -> None:
    deploy = of_rows(GOOD, events=[*enqueued(), *ran(1, 2)])

    assert list(both_releases_work(deploy, BOTH, BOTH)) == [
        "no pool of the new release has executed an activity of a producer of the old release",
        "no pool of the old release has executed an activity of a producer of the new release",
        "no pool of the new release has executed an activity of a producer of the new release",
    ]


def test_rows_that_a_migration_changes_or_loses_are_found() -> None:
    before = {"a": [1], "b": [2], "c": [3]}

    assert list(differences(before, {"a": [1], "b": [0]}, "later")) == ["b: [2] is [0] later", "c: [3] is None later"]
