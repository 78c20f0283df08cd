"""The pool as its operator meets it: flags, signals, exit codes, cancellation."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from django_agentexec import Status, TaskCanceled, activity, get_result
from django_agentexec.models import Activity
from django_agentexec.queues import get_queue
from tests.e2e.journal import Journal
from tests.support.pool_process import environment, pool, refused, run_burst, until
from tests.support.process_state import is_alive
from tests.testapp import agents
from tests.testapp.agents import Text, Work, shout, sync_work, work

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]


def status_of(handle: object) -> str:
    return Activity.objects.get(pk=handle.agent_id).status  # type: ignore[attr-defined]


def test_sigterm_waits_for_what_runs_and_claims_nothing_more(journal: Journal) -> None:
    running = work.enqueue(Work(journal=journal.path, name="a", seconds=1))
    with pool("--workers", "1", "--concurrency", "1") as process:
        until(lambda: journal.pid_of("a"), "the start")
        waiting = work.enqueue(Work(journal=journal.path, name="b"))
        assert process.stop() == 0

    assert status_of(running) == Status.COMPLETE
    assert status_of(waiting) == Status.QUEUED


def test_what_does_not_end_within_the_grace_period_is_released_uncharged(journal: Journal) -> None:
    coroutine = work.enqueue(Work(journal=journal.path, name="async", seconds=60))
    thread = sync_work.enqueue(Work(journal=journal.path, name="sync", seconds=60))
    with pool("--workers", "1", GRACE_PERIOD=0.2) as process:
        until(lambda: len(journal.names("start")) == 2, "both starts")
        assert process.stop() == 0

    for handle in (coroutine, thread):
        row = Activity.objects.get(pk=handle.agent_id)
        assert (row.status, row.attempt, row.crashes) == (Status.QUEUED, 0, 0)
    assert get_queue().stats("default").ready == 2


def test_a_second_signal_ends_at_once(journal: Journal) -> None:
    work.enqueue(Work(journal=journal.path, name="a", seconds=60))
    with pool("--workers", "1", GRACE_PERIOD=60) as process:
        until(lambda: journal.pid_of("a"), "the start")
        process.send(signal.SIGTERM)
        until(lambda: "Draining" in process.output, "the drain")
        process.send(signal.SIGTERM)
        assert process.wait(timeout=15) == 0

    assert Activity.objects.get().status == Status.QUEUED


def test_a_running_handler_is_canceled_by_notification(journal: Journal) -> None:
    # With a lease this long no heartbeat comes by during the test.
    handle = work.enqueue(Work(journal=journal.path, name="a", seconds=60))
    with pool("--workers", "1", LEASE=600):
        until(lambda: journal.pid_of("a"), "the start")
        activity.cancel(handle.agent_id)
        until(lambda: get_queue().stats("default").leased == 0, "the handler's end", timeout=10)
        with pytest.raises(TaskCanceled):
            get_result(handle)

    assert journal.names("end") == []
    assert status_of(handle) == Status.CANCELED


def test_a_sync_handler_sees_that_it_is_canceled(journal: Journal) -> None:
    handle = sync_work.enqueue(Work(journal=journal.path, name="a", seconds=60))
    with pool("--workers", "1", LEASE=600):
        until(lambda: journal.pid_of("a"), "the start")
        activity.cancel(handle.agent_id)
        until(lambda: journal.names("canceled") == ["a"], "the handler's answer", timeout=10)

    assert status_of(handle) == Status.CANCELED


def test_a_canceled_activity_can_be_retried(journal: Journal) -> None:
    handle = work.enqueue(Work(journal=journal.path, name="a", seconds=1))
    with pool("--workers", "1"):
        until(lambda: journal.pid_of("a"), "the start")
        activity.cancel(handle.agent_id)
        activity.retry(handle.agent_id)
        assert get_result(handle, timeout=30) == "a"

    assert len(journal.names("start")) == 2
    assert journal.names("end") == ["a"]


def test_a_process_is_replaced_after_its_number_of_tasks(journal: Journal) -> None:
    work.enqueue_many([Work(journal=journal.path, name=str(n)) for n in range(6)])
    with pool("--workers", "1", "--max-tasks-per-child", "2"):
        until(lambda: len(journal.names("end")) == 6, "all done")

    assert len({found.pid for found in journal.events("end")}) == 3


def test_a_process_is_replaced_when_it_uses_too_much_memory(journal: Journal) -> None:
    handles = work.enqueue_many([Work(journal=journal.path, name=str(n), seconds=0.7) for n in range(5)])
    with pool("--workers", "1", "--concurrency", "1", "--max-rss", "1") as process:
        for handle in handles:
            get_result(handle, timeout=60)

    assert "uses more than 1 MB" in process.output
    assert len({found.pid for found in journal.events("end")}) > 1


def test_a_pool_listens_to_its_queues_only(journal: Journal) -> None:
    here = work.enqueue(Work(journal=journal.path, name="a"), queue="here")
    there = work.enqueue(Work(journal=journal.path, name="b"), queue="there")

    run_burst("--queues", "here,other")

    assert (status_of(here), status_of(there)) == (Status.COMPLETE, Status.QUEUED)
    get_queue().ack_and_claim("there", "w", limit=1)


def test_processes_announce_themselves(journal: Journal) -> None:
    work.enqueue(Work(journal=journal.path, name="a", seconds=60))
    with pool("--workers", "2", "--concurrency", "7", LEASE=0.6, GRACE_PERIOD=0):
        workers = until(
            lambda: [w for w in get_queue().workers() if w.running] and get_queue().workers(), "a busy worker"
        )
        assert len(workers) == 2
        assert {(w.queues[0], w.concurrency, w.quarantine) for w in workers} == {("default", 7, False)}
        assert sum(w.running for w in workers) == 1

    assert get_queue().workers() == []


def test_enqueued_while_redis_was_away_is_found_by_the_reconciler() -> None:
    handle = shout.enqueue(Text(text="found"))
    get_queue().client.flushall()  # type: ignore[attr-defined]
    Activity.objects.update(updated_at=Activity.objects.get().created_at.replace(year=2020))

    with pool("--workers", "1"):
        assert get_result(handle, timeout=30) == "FOUND"


def test_workers_end_when_their_pool_is_killed(journal: Journal) -> None:
    work.enqueue(Work(journal=journal.path, name="a", seconds=0.5))
    with pool("--workers", "1") as process:
        worker = until(lambda: journal.pid_of("a"), "the start")
        process.send(signal.SIGKILL)
        process.wait()
        until(lambda: not is_alive(worker), "the worker's end")

    assert Activity.objects.get().status == Status.COMPLETE


def test_a_pool_without_redis_says_so_and_exits_with_1() -> None:
    env = {**environment(), "AGENTEXEC_TEST_REDIS": "redis://127.0.0.1:1/0"}
    done = subprocess.run(
        [sys.executable, "-m", "django", "runagentworkers"], env=env, capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 1
    assert "does not answer" in done.stderr
    assert "Traceback" not in done.stderr


def start_in_vain(**variables: str) -> str:
    """Start a pool that must end with 1 before it has a process, and return its error."""
    done = subprocess.run(
        [sys.executable, "-m", "django", "runagentworkers"],
        env={**environment(), **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1, done.stdout
    return done.stderr


def test_a_pool_whose_tables_are_missing_asks_for_migrate(tmp_path: Path) -> None:
    empty = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "empty.sqlite3")}

    complaint = start_in_vain(AGENTEXEC_TEST_DATABASE=json.dumps(empty))

    assert "manage.py migrate" in complaint
    assert "Traceback" not in complaint


def test_a_pool_without_its_database_says_so(tmp_path: Path) -> None:
    nowhere = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "no" / "folder.sqlite3")}

    complaint = start_in_vain(AGENTEXEC_TEST_DATABASE=json.dumps(nowhere))

    assert "DATABASES['default'] cannot be used" in complaint
    assert "Traceback" not in complaint


def test_a_pool_whose_tasks_cannot_be_imported_does_not_burn_their_retries(tmp_path: Path) -> None:
    handle = shout.enqueue(Text(text="hi"))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "__init__.py").touch()
    (tmp_path / "broken" / "agents.py").write_text("import nowhere")
    (tmp_path / "broken_settings.py").write_text("from tests.settings import *\nINSTALLED_APPS += ['broken']")

    complaint = start_in_vain(
        PYTHONPATH=os.pathsep.join([str(tmp_path), os.getcwd()]), DJANGO_SETTINGS_MODULE="broken_settings"
    )

    assert "Could not import the tasks of the project" in complaint
    assert "broken/agents.py" in complaint
    assert Activity.objects.get(agent_id=handle.agent_id).attempt == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [(["--queues", "a b"], "is not a queue name"), (["--workers", "0"], "not a positive number")],
)
def test_wrong_arguments_are_explained(arguments: list[str], complaint: str) -> None:
    assert complaint in refused(*arguments)


def test_processes_can_be_spawned_instead_of_forked() -> None:
    handle = shout.enqueue(Text(text="hi"))

    run_burst("--workers", "1", START_METHOD="spawn")

    assert get_result(handle, timeout=1) == "HI"


def test_a_queue_in_memory_has_no_workers() -> None:
    backend = "django_agentexec.queues.memory.MemoryQueue"
    done = subprocess.run(
        [sys.executable, "-m", "django", "runagentworkers"],
        env=environment(QUEUE_BACKEND=backend),
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 1
    assert "exists only in one process" in done.stderr


@pytest.mark.slow
def test_changed_code_starts_the_pool_anew(journal: Journal) -> None:
    with pool("--workers", "1", "--autoreload") as process:
        until(get_queue().workers, "the first worker")
        os.utime(agents.__file__)
        until(lambda: process.output.count("Quit with Ctrl-C") == 2, "the second banner")
        handle = work.enqueue(Work(journal=journal.path, name="a"))
        assert get_result(handle, timeout=30) == "a"
        assert process.stop() == 0


def test_a_healthy_pool_logs_its_readiness_and_each_start_and_end(journal: Journal) -> None:
    with pool("--workers", "1", "-v1") as process:
        until(lambda: "is ready" in process.output, "a worker")
        handle = work.enqueue(Work(journal=journal.path, name="a"))
        get_result(handle)
        until(lambda: f"Finished work {handle.agent_id}: complete after" in process.output, "the log of the end")
        output = process.output

    assert f"Started work {handle.agent_id}." in output
    assert "DEBUG" not in output


def test_a_pool_whose_output_nobody_reads_any_more_goes_on_and_ends_in_peace(journal: Journal) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "django", "runagentworkers", "--workers", "1"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = process.stdout.readline()
        process.stdout.close()  # as `head -1` does
        get_result(work.enqueue(Work(journal=journal.path, name="a")), timeout=60)
        process.terminate()
        log = process.stderr.read()

    assert first.startswith("django-agentexec")
    assert process.returncode == 0
    assert "BrokenPipe" not in log
    assert "Traceback" not in log


@pytest.mark.slow
def test_a_typo_is_waited_for_until_it_is_corrected(journal: Journal, tmp_path: Path) -> None:
    """Neither a wrong setting nor code that cannot be imported ends a pool that reloads."""
    settings = tmp_path / "typo_settings.py"
    valid = "from tests.settings import *\n"
    settings.write_text(valid)
    path = os.pathsep.join([os.getcwd(), str(tmp_path)])
    variables = {"DJANGO_SETTINGS_MODULE": "typo_settings", "PYTHONPATH": path}
    with pool("--workers", "1", "--autoreload", variables=variables) as process:
        until(get_queue().workers, "the first worker")
        settings.write_text(valid + "AGENTEXEC = {**AGENTEXEC, 'POLICY': 'nowhere.Policy'}\n")
        until(lambda: process.output.count("waiting for the next change") == 1, "the refusal of the setting")
        settings.write_text(valid + "AGENTEXEC = {\n")
        until(lambda: process.output.count("waiting for the next change") == 2, "the refusal of the syntax")
        settings.write_text(valid)
        until(lambda: process.output.count("Quit with Ctrl-C") == 2, "the second banner")
        handle = work.enqueue(Work(journal=journal.path, name="a"))
        assert get_result(handle, timeout=30) == "a"
        assert process.stop() == 0

    assert "agentexec.E008" in process.output
    assert "SyntaxError" in process.output


@pytest.mark.slow
def test_a_pool_that_waits_for_a_correction_ends_on_sigterm(tmp_path: Path) -> None:
    settings = tmp_path / "typo_settings.py"
    settings.write_text("from tests.settings import *\n")
    path = os.pathsep.join([os.getcwd(), str(tmp_path)])
    variables = {"DJANGO_SETTINGS_MODULE": "typo_settings", "PYTHONPATH": path}
    with pool("--workers", "1", "--autoreload", variables=variables) as process:
        until(get_queue().workers, "the first worker")
        settings.write_text("oops\n")
        until(lambda: "waiting for the next change" in process.output, "the refusal")
        assert process.stop() == 0
