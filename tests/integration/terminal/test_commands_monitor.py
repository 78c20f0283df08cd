"""`agentmonitor`, `agentworkers` and `agentexec_health`: on a terminal, in a pipe, and without servers."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from uuid import uuid4

import pytest
from django.db import DatabaseError
from django.test import override_settings
from django.utils import timezone

from django_agentexec import QueueUnavailable, activity
from django_agentexec.models import Activity, ActivityLog, Status, WaitingFor
from django_agentexec.monitoring import HealthSchema, OverviewSchema, WorkerSchema
from django_agentexec.queues import WorkerInfo, get_queue
from django_agentexec.schemas import ActivityListItemSchema
from tests.support.management_commands import call, on_terminal, run
from tests.support.pool_process import environment
from tests.testapp.agents import Text, shout

pytestmark = pytest.mark.django_db(transaction=True)

ENTER, LEAVE, SHOW_CURSOR = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25h"
AWAY = {"AGENTEXEC_TEST_REDIS": "redis://127.0.0.1:1/0"}


def register_worker(name: str = "host-1", *, beat: float = 0.0, quarantine: bool = False) -> None:
    """Register a worker whose last heartbeat was `beat` seconds ago."""
    now = time.time()
    get_queue().register_worker(
        WorkerInfo(
            id=name, host="host", pid=1, queues=["default"], concurrency=50, quarantine=quarantine,
            started=now - 600, last_beat=now - beat, running=3, done=12, failed=1,
        )
    )  # fmt: skip


def running(message: str, percentage: int) -> None:
    agent_id = activity.create("import")
    activity.update(agent_id, message, percentage=percentage)


def test_once_writes_runs_workers_and_queues_as_plain_text() -> None:
    running("Reading page 3", 30)
    register_worker()

    out = call("agentmonitor", "--once").out

    assert re.search(r"running +import +30 +\S+ +Reading page 3", out)
    assert re.search(r"host-1 +alive +3/50 +12 +1 +default", out)
    assert "1 running, 0 queued, 1 worker;" in out
    assert "\x1b" not in out


def test_a_suspended_activity_shows_what_it_waits_for() -> None:
    Activity.objects.create(
        agent_type="import", status=Status.RUNNING, blocking_child_id=uuid4(), waiting_for=WaitingFor.APPROVAL
    )

    assert re.search(r"waiting: approval +import", call("agentmonitor", "--once").out)
    assert re.search(r"waiting: approval +0 +import", call("agents", "list").out)
    with on_terminal("agentmonitor", "--interval", "0.1") as terminal:
        terminal.read_until("waiting: approval")


def test_once_as_json_is_of_the_wire_shapes() -> None:
    running("Reading page 3", 30)
    register_worker()

    content = json.loads(call("agentmonitor", "--once", "--json").out)

    assert OverviewSchema.model_validate(content["overview"]).model_dump(mode="json") == content["overview"]
    assert content["activities"] == [
        ActivityListItemSchema.model_validate(Activity.objects.get()).model_dump(mode="json")
    ]


def test_running_activities_come_first_then_the_oldest_queued() -> None:
    running("Reading page 3", 30)
    first = shout.enqueue(Text()).agent_id
    second = shout.enqueue(Text()).agent_id
    third = shout.enqueue(Text()).agent_id

    content = json.loads(call("agentmonitor", "--once", "--json", "--limit", "3").out)

    assert [one["status"] for one in content["activities"]] == ["running", "queued", "queued"]
    assert [one["agent_id"] for one in content["activities"][1:]] == [str(first), str(second)]
    assert str(third) not in json.dumps(content["activities"])


def test_finished_runs_are_not_shown() -> None:
    activity.complete(activity.create("import"), "All imported")

    assert "Nothing is running or queued." in call("agentmonitor", "--once").out


def test_an_unavailable_redis_is_reported_and_the_rows_are_shown() -> None:
    running("Reading page 3", 30)

    answer = run("agentmonitor", "--once", environ=AWAY)

    assert answer.code == 0
    assert "Reading page 3" in answer.out
    assert re.search("^! .*(refused|cannot be reached|does not answer)", answer.out, re.MULTILINE | re.IGNORECASE)
    assert "1 running, 0 queued, workers and last hour unknown" in answer.out
    assert re.search(r"^default +unknown +unknown +unknown +unknown +- +unknown$", answer.out, re.MULTILINE)


def test_the_last_known_values_are_shown_for_unknown_values(monkeypatch: pytest.MonkeyPatch) -> None:
    register_worker()
    call("agentmonitor", "--once")

    def refuse(self: object, names: object) -> None:
        raise QueueUnavailable("Redis does not answer.")

    monkeypatch.setattr(type(get_queue()), "read_counters", refuse)
    out = call("agentmonitor", "--once").out

    assert re.search(r"^Last known at \d\d:\d\d:\d\d UTC: 1 worker; in the hour before: 0 complete", out, re.MULTILINE)
    assert "host-1" not in out  # whether it is alive is unknown


@override_settings(TIME_ZONE="Pacific/Kiritimati")
def test_times_are_in_the_current_time_zone_which_is_named_once() -> None:
    agent_id = activity.create("import")
    moment = timezone.now().replace(hour=11, minute=30, second=5)
    Activity.objects.update(created_at=moment)
    ActivityLog.objects.update(created_at=moment)

    shown = call("agents", "show", str(agent_id)).out

    assert re.search(r"created +\S+ 01:30:05$", shown, re.MULTILINE)
    assert re.search(r"^ +01:30:05 +0 %", shown, re.MULTILINE)
    assert shown.count("Pacific/Kiritimati") == 1
    assert call("agentmonitor", "--once").out.count("Pacific/Kiritimati") == 1


def test_into_a_pipe_it_writes_plain_text_again_and_again() -> None:
    running("Reading page 3", 30)
    command = [sys.executable, "-m", "django", "agentmonitor", "--interval", "0.1"]

    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        lines = []
        while sum("Reading page 3" in line for line in lines) < 3:
            lines.append(process.stdout.readline())  # type: ignore[union-attr]
            assert lines[-1], lines
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)

    assert process.returncode == 0
    assert "\x1b" not in "".join(lines)


@pytest.mark.parametrize("way", ["q", "Ctrl-C", "SIGTERM"])
def test_a_terminal_is_left_as_it_was(way: str) -> None:
    running("Reading page 3", 30)

    with on_terminal("agentmonitor", "--interval", "0.1") as terminal:
        terminal.read_until("Reading page 3")
        if way == "q":
            terminal.press("q")
        else:
            terminal.send(signal.SIGINT if way == "Ctrl-C" else signal.SIGTERM)
        assert terminal.wait() == 0

        assert terminal.output.index(ENTER) < terminal.output.index(LEAVE)
        assert SHOW_CURSOR in terminal.output
        assert terminal.is_as_before


def test_other_keys_do_not_quit_and_changes_are_shown() -> None:
    agent_id = activity.create("import")
    activity.update(agent_id, "Reading page 3", percentage=30)

    with on_terminal("agentmonitor", "--interval", "0.1") as terminal:
        terminal.read_until("Reading page 3")
        terminal.press("x\x1b[A")
        activity.update(agent_id, "Reading page 4", percentage=40)
        terminal.read_until("Reading page 4")
        terminal.press("q")
        assert terminal.wait() == 0


@pytest.mark.parametrize("columns", [30, 50, 80, 200])
def test_a_narrow_terminal_loses_columns_but_not_status_and_percentage(columns: int) -> None:
    running("Reading a very long page of a very long document " * 5, 30)
    shout.enqueue_many([Text()] * 40)
    register_worker()

    with on_terminal("agentmonitor", "--interval", "0.1", columns=columns, rows=15) as terminal:
        terminal.read_until("running")
        terminal.read_until("q quits")
        terminal.press("q")
        assert terminal.wait() == 0

    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.output.replace("\x1b[H", "\n"))
    lines = plain.replace("\r", "").split("\n")
    assert max(map(len, lines)) <= columns
    assert any(re.match(r"running .* 30 ", line) for line in lines)


def test_texts_of_agents_cannot_control_the_screen() -> None:
    running("a\x1b]0;owned\x07b[bold]c", 30)

    with on_terminal("agentmonitor", "--interval", "0.1") as terminal:
        terminal.read_until("b[bold]c")
        terminal.press("q")
        terminal.wait()

    assert "\x1b]0;" not in terminal.output


def test_a_missing_rich_is_reported_with_the_remedy() -> None:
    code = (
        "import sys; sys.modules['rich'] = sys.modules['rich.console'] = None;"
        "from django.core.management import execute_from_command_line as run; run(['manage.py', 'agentmonitor'])"
    )
    with on_terminal("-c", code, module=False) as terminal:
        assert terminal.wait() == 1
        assert terminal.is_as_before

    assert "pip install 'django-agentexec[terminal]'" in terminal.output
    assert "Traceback" not in terminal.output


def test_json_without_once_is_refused() -> None:
    assert call("agentmonitor", "--json").code == 2


def test_an_unavailable_database_is_reported_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise DatabaseError("no such table: agentexec_activity")

    monkeypatch.setattr("django_agentexec.monitoring.overview", refuse)

    answer = call("agentmonitor", "--once")

    assert answer.code == 1
    assert "migrate" in answer.err


def test_workers_are_listed_with_load_and_last_beat() -> None:
    register_worker("host-1")
    register_worker("host-2", quarantine=True)
    register_worker("host-3", beat=100)

    lines = call("agentworkers").out.splitlines()

    states = {line.split()[0]: line.split()[1] for line in lines[1:]}
    assert states == {"host-1": "alive", "host-2": "quarantine", "host-3": "silent"}
    assert re.search(r"host-1 +alive +3 +50 +12 +1 +default +10m +0s ago", lines[1])


def test_workers_as_json_are_of_the_wire_shape() -> None:
    register_worker()

    (worker,) = json.loads(call("agentworkers", "--json").out)

    assert WorkerSchema.model_validate(worker).is_alive
    assert worker["id"] == "host-1"


def test_workers_without_redis_are_exit_code_1() -> None:
    answer = run("agentworkers", environ=AWAY)

    assert (answer.code, answer.out) == (1, "")
    assert "Traceback" not in answer.err


def test_health_prints_a_line_per_check_and_sets_the_exit_code() -> None:
    register_worker()
    healthy = call("agentexec_health")
    get_queue().deregister_worker("host-1")
    alone = call("agentexec_health")

    assert healthy.code == 0
    assert re.search("^ok +database: ", healthy.out, re.MULTILINE)
    assert alone.code == 1
    assert re.search("^FAIL +workers: ", alone.out, re.MULTILINE)


def test_health_as_json_is_of_the_wire_shape() -> None:
    answer = call("agentexec_health", "--json")

    assert answer.code == 1
    assert HealthSchema.model_validate_json(answer.out).ok is False


def test_health_of_a_container_without_redis_fails_in_words() -> None:
    answer = run("agentexec_health", environ=AWAY)

    assert answer.code == 1
    assert re.search("^FAIL +queue: ", answer.out, re.MULTILINE)
    assert "Traceback" not in answer.err
