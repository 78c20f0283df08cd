"""`manage.py agents`: output, changes and exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from io import StringIO
from pathlib import Path
from subprocess import PIPE
from typing import Any
from uuid import uuid4

import pytest
from django.core.checks import run_checks
from django.test import override_settings
from django.utils import timezone

from django_agentexec import Priority, QueueUnavailable, Status, activity
from django_agentexec.management.commands.agents import Command
from django_agentexec.models import Activity, AgentCall
from django_agentexec.queues.redis import RedisQueue
from django_agentexec.schemas import ActivityDetailSchema, ActivityListSchema
from django_agentexec.testing import drain
from tests.support.activity_rows import row
from tests.support.management_commands import call, on_terminal, run
from tests.support.pool_process import environment
from tests.testapp.agents import Text, fail, keyed, report, shout

pytestmark = pytest.mark.django_db(transaction=True)

UNKNOWN = "01920000-0000-7000-8000-000000000000"


def test_list_shows_active_activities_first_and_their_number() -> None:
    ended = shout.enqueue(Text()).agent_id
    activity.cancel(ended)
    waiting = [shout.enqueue(Text()).agent_id for _ in range(2)]

    answer = call("agents", "list", "--limit", "2")

    lines = answer.out.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [[str(one), "queued"] for one in reversed(waiting)]
    assert "2 of 3 shown." in answer.err


def test_list_filters_by_status_type_queue_and_metadata() -> None:
    wanted = shout.enqueue(Text(), queue="urgent", metadata={"organization_id": "org-1", "number": 1}).agent_id
    shout.enqueue(Text(), queue="urgent", metadata={"organization_id": "org-2", "number": 1})
    shout.enqueue(Text(), metadata={"organization_id": "org-1", "number": 1})
    report.enqueue(Text(), queue="urgent", metadata={"organization_id": "org-1", "number": 1})

    filters = ["--status", "queued", "--type", "shout", "--queue", "urgent"]
    answer = call("agents", "list", *filters, "--metadata", "organization_id=org-1", "--metadata", "number=1", "--json")

    assert [item["agent_id"] for item in json.loads(answer.out)["items"]] == [str(wanted)]
    assert json.loads(call("agents", "list", "--metadata", 'number="1"', "--json").out)["items"] == []


def listed(*filters: str) -> list[str]:
    """Return the tasks of the listed activities, in alphabetical order."""
    items = json.loads(call("agents", "list", *filters, "--json").out)["items"]
    return sorted(item["agent_type"] for item in items)


def test_list_filters_by_reason_model_tool_and_cost() -> None:
    for name, cost, reason in (("a", None, "budget"), ("b", "0.5", "approval"), ("c", "2", "")):
        made = Activity.objects.create(
            agent_type=name,
            status="running",
            cost=cost,
            waiting_for=reason,
            blocking_child_id=uuid4() if reason else None,
        )
        for kind in ("model", "tool"):
            AgentCall.objects.create(activity=made, kind=kind, name=f"{kind} of {name}", started_at=timezone.now())

    assert listed("--waiting-for", "budget", "--waiting-for", "approval") == ["a", "b"]
    assert listed("--model", "model of b") == listed("--tool", "tool of b") == ["b"]
    assert (listed("--tool", "model of b"), listed("--tool", "tool of b", "--max-cost", "0.4")) == ([], [])
    assert (listed("--min-cost", "0.5"), listed("--max-cost", "0.5"), listed("--min-cost", "0")) == (
        ["b", "c"], ["b"], ["b", "c"],
    )  # fmt: skip


@pytest.mark.parametrize("amount", ["-1", "nan", "inf", "much", "1e99", "\N{ARABIC-INDIC DIGIT ONE}"])
def test_an_impossible_cost_is_refused(amount: str) -> None:
    answer = call("agents", "list", f"--min-cost={amount}")

    assert answer.code != 0
    assert "is not an amount of US dollars" in answer.err


def test_filters_require_all() -> None:
    answer = call("agents", "cancel", UNKNOWN, "--min-cost", "0")

    assert (answer.code, "Filters require --all" in answer.err) == (2, True)


@pytest.mark.parametrize("option", ["--type", "--queue", "--model", "--tool"])
def test_an_empty_variable_of_a_shell_does_not_select_everything(option: str) -> None:
    handle = shout.enqueue(Text())

    answer = call("agentexec", "cancel", "--all", "--yes", f"{option}=")

    assert (answer.code != 0, "must be text of 1 to" in answer.err) == (True, True)
    assert row(handle.agent_id).status == "queued"


@pytest.mark.parametrize("name", ["", "nobody"])
def test_an_activity_is_not_enqueued_without_its_user(name: str) -> None:
    answer = call("agentexec", "enqueue", "shout", "{}", f"--user={name}")

    assert (answer.code != 0, "There is no active user" in answer.err) == (True, True)
    assert not Activity.objects.exists()


def test_all_entries_of_the_metadata_are_required() -> None:
    for number in (7, 8):
        Activity.objects.create(agent_type=f"of {number}", metadata={"org": number, "is_trial": True})

    assert listed("--metadata", "org=8", "--metadata", "is_trial=true") == ["of 8"]
    assert listed("--metadata", "org=7", "--metadata", "org=8") == []


def test_list_as_json_is_the_wire_shape() -> None:
    shout.enqueue(Text(), metadata={"secret": "tenant"})

    answer = call("agents", "list", "--json", "--limit", "50")

    assert json.loads(answer.out) == activity.list().model_dump(mode="json")
    assert ActivityListSchema.model_validate_json(answer.out).items[0].metadata == {}


@override_settings(AGENTEXEC={"COUNT_LIMIT": 2})
def test_list_counts_up_to_the_limit() -> None:
    for _ in range(4):
        activity.create("import")

    assert "1 of at least 2 shown." in call("agents", "list", "--limit", "1").err


def test_texts_of_agents_cannot_control_the_terminal() -> None:
    agent_id = activity.create("import")
    activity.update(agent_id, "a\x1b[2Jb\x9bc\u202ed\u061ce")

    for arguments in (["list"], ["list", "--json"], ["show", str(agent_id)], ["show", str(agent_id), "--json"]):
        out = call("agents", *arguments).out
        assert "a" in out
        assert not set("\x1b\x9b\u202e\u061c") & set(out), arguments


def test_show_prints_status_log_context_result_and_children() -> None:
    handle = report.enqueue(Text(text="two words"), metadata={"organization_id": "org-1"})
    drain()
    child = shout.enqueue(Text()).agent_id
    Activity.objects.filter(pk=child).update(parent=handle.agent_id)

    out = call("agents", "show", str(handle.agent_id)).out

    for part in ("complete, 100 %", "50 %  Counting", '"words": 2', '"text": "two words"', "organization_id=org-1"):
        assert part in out
    assert f"{child} (queued)" in out


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ({"cost": "0.1", "usage": {"total_tokens": 5}}, "cost         $0.10"),
        ({"cost": "0", "usage": {"total_tokens": 5}}, "cost         $0.00"),
        ({"cost": None, "usage": {"total_tokens": 5}}, "cost         unpriced"),
        ({"cost": None, "usage": {}}, None),
    ],
)
def test_show_prints_the_cost(values: dict[str, Any], shown: str | None) -> None:
    agent_id = activity.create("import")
    Activity.objects.filter(pk=agent_id).update(**values)

    lines = [" ".join(line.split()) for line in call("agentexec", "show", str(agent_id)).out.splitlines()]

    costs = [line for line in lines if line.startswith("cost ")]
    assert costs == ([] if shown is None else [" ".join(shown.split())])


def test_show_as_json_is_the_wire_shape() -> None:
    agent_id = shout.enqueue(Text()).agent_id

    out = call("agents", "show", str(agent_id), "--json").out

    assert json.loads(out) == activity.detail(agent_id).model_dump(mode="json")
    assert ActivityDetailSchema.model_validate_json(out).logs[0].message == "Waiting to start."


def test_the_first_digits_of_an_id_are_enough_if_they_are_unique() -> None:
    first, second = (shout.enqueue(Text()).agent_id for _ in range(2))
    common = next(str(first)[:n] for n in range(36, 0, -1) if str(second).startswith(str(first)[:n]))

    assert call("agents", "show", str(first)[:-2].upper()).code == 0
    ambiguous = call("agents", "show", common)
    assert ambiguous.code == 2
    assert f"{first}, {second}" in ambiguous.err


@pytest.mark.parametrize("text", [UNKNOWN, "0192", "nonsense", "%", ""])
@pytest.mark.parametrize("verb", ["show", "result", "cancel", "retry"])
def test_an_unknown_id_is_exit_code_3(verb: str, text: str) -> None:
    answer = call("agents", verb, text)

    assert answer.code == 3
    assert "There is no activity" in answer.err


def test_cancel_by_id_reports_refused_changes_with_their_reason() -> None:
    waiting, ended = (shout.enqueue(Text()).agent_id for _ in range(2))
    activity.cancel(ended)

    answer = call("agents", "cancel", "--yes", str(waiting), str(ended))

    assert (answer.code, answer.out.splitlines()) == (1, ["1 canceled.", "1 refused: already canceled."])
    assert row(waiting).status == Status.CANCELED


def test_cancel_all_cancels_active_activities_that_match() -> None:
    mine = [shout.enqueue(Text(), metadata={"org": "a"}).agent_id for _ in range(2)]
    other = shout.enqueue(Text(), metadata={"org": "b"}).agent_id
    activity.complete(activity.create("shout", metadata={"org": "a"}))

    answer = call("agents", "cancel", "--all", "--metadata", "org=a", "--yes", "--json")

    assert answer.code == 0
    assert json.loads(answer.out) == {"done": [str(one) for one in mine], "refused": {}}
    assert row(other).status == Status.QUEUED


def test_retry_all_queues_failed_and_canceled_activities_again() -> None:
    failed = fail.enqueue(Text(text="broken")).agent_id
    drain()
    done = shout.enqueue(Text()).agent_id
    drain()

    answer = call("agents", "retry", "--all", "--yes")

    assert answer.out == "1 queued again.\n"
    assert (row(failed).status, row(done).status) == (Status.QUEUED, Status.COMPLETE)


def test_nothing_is_changed_without_a_confirmation() -> None:
    agent_id = shout.enqueue(Text()).agent_id

    with on_terminal("agents", "cancel", "--all") as terminal:
        terminal.read_until("Cancel 1 activity? [y/N]")
        terminal.press("\n")
        assert terminal.wait() == 1
    assert row(agent_id).status == Status.QUEUED

    with on_terminal("agents", "cancel", "--all") as terminal:
        terminal.read_until("[y/N]")
        terminal.press("y\n")
        assert terminal.wait() == 0
    assert row(agent_id).status == Status.CANCELED


def test_without_a_terminal_yes_is_required() -> None:
    agent_id = shout.enqueue(Text()).agent_id

    answer = run("agents", "cancel", str(agent_id))

    assert answer.code == 2
    assert "--yes" in answer.err
    assert row(agent_id).status == Status.QUEUED


@pytest.mark.parametrize(
    "arguments",
    [
        ["cancel"],
        ["retry", "--type", "shout"],
        ["cancel", "--all", UNKNOWN],
        ["cancel", UNKNOWN, "--status", "queued"],
        ["list", "--metadata", "org"],
        ["list", "--limit", "0"],
        ["list", "--status", "done"],
        ["enqueue", "shout", "--delay", "soon"],
        ["enqueue", "shout", "--queue", "no name"],
        ["enqueue", "shout", "@/no/such/file"],
        ["enqueue", "shout", "{broken"],
        ["result", UNKNOWN, "--timeout", "-1"],
    ],
)
def test_wrong_arguments_are_exit_code_2(arguments: list[str]) -> None:
    answer = call("agents", *arguments)

    assert answer.code in (1, 2)  # argparse's own errors are 2 on the command line, 1 in call_command
    assert not Activity.objects.exists()


def test_wrong_arguments_on_the_command_line_are_exit_code_2() -> None:
    answer = run("agents", "list", "--metadata", "org")

    assert answer.code == 2
    assert "KEY=VALUE" in answer.err


def test_enqueue_takes_every_option_and_prints_the_id() -> None:
    answer = call(
        "agents", "enqueue", "shout", '{"text": "hi"}', "--priority", "high", "--delay", "10m", "--queue", "slow",
        "--metadata", "org=org-1", "--metadata", "n=3", "--idempotency-key", "order-7",
    )  # fmt: skip

    one = Activity.objects.get()
    assert answer.out.strip() == str(one.agent_id)
    assert (one.priority, one.queue, one.idempotency_key) == (Priority.HIGH, "slow", "order-7")
    assert (one.context, one.metadata) == ({"text": "hi"}, {"org": "org-1", "n": 3})
    assert one.run_after is not None
    assert 590 < (one.run_after - one.created_at).total_seconds() <= 601


def test_enqueue_reports_an_existing_idempotency_key() -> None:
    first = call("agents", "enqueue", "shout", "--idempotency-key", "order-7")
    second = call("agents", "enqueue", "shout", "--idempotency-key", "order-7", "--json")

    assert json.loads(second.out) == {
        "agent_id": first.out.strip(),
        "agent_type": "shout",
        "created": False,
        "status_url": f"/agents/activities/{first.out.strip()}/",
    }
    assert "already exists" in second.err


def test_the_context_comes_from_an_argument_stdin_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "context.json"
    file.write_text('{"text": "from a file"}')

    assert call("agents", "enqueue", "shout", '{"text": "from an argument"}').code == 0
    assert call("agents", "enqueue", "shout", f"@{file}").code == 0
    assert run("agents", "enqueue", "shout", "-", stdin='{"text": "from stdin"}').code == 0

    texts = Activity.objects.order_by("agent_id").values_list("context__text", flat=True)
    assert list(texts) == ["from an argument", "from a file", "from stdin"]


def test_each_invalid_field_of_a_context_is_reported() -> None:
    answer = call("agents", "enqueue", "keyed", '{"number": "many", "seconds": []}')

    assert answer.code == 2
    assert "  key: Field required\n" in answer.err
    assert "  number: Input should be a valid integer" in answer.err
    assert "(given: 'many')" in answer.err
    assert "  seconds: " in answer.err
    assert not Activity.objects.exists()


def test_a_context_with_unknown_fields_is_refused() -> None:
    answer = call("agents", "enqueue", "keyed", '{"key": "a", "nmuber": 3}')

    assert answer.code == 2
    assert "  nmuber: Extra inputs are not permitted (given: 3)" in answer.err
    assert not Activity.objects.exists()


def test_an_unknown_task_is_exit_code_3_with_the_closest_names() -> None:
    answer = call("agents", "enqueue", "shuot")

    assert answer.code == 3
    assert "Did you mean 'shout'?" in answer.err


def test_result_prints_the_result_as_json() -> None:
    agent_id = report.enqueue(Text(text="a b c")).agent_id
    drain()

    answer = call("agents", "result", str(agent_id))

    assert (answer.code, json.loads(answer.out)) == (0, {"title": "a b c", "words": 3})


def test_result_of_a_failed_or_canceled_run_is_exit_code_1() -> None:
    failed, canceled = fail.enqueue(Text(text="broken")).agent_id, shout.enqueue(Text(), delay=60).agent_id
    activity.cancel(canceled)
    drain()

    for agent_id, reason in ((failed, "broken"), (canceled, "was canceled")):
        answer = call("agents", "result", str(agent_id))
        assert (answer.code, answer.out) == (1, "")
        assert reason in answer.err


def test_a_result_after_the_timeout_is_exit_code_124() -> None:
    agent_id = shout.enqueue(Text()).agent_id

    answer = call("agents", "result", str(agent_id), "--timeout", "0.1s")

    assert answer.code == 124
    assert "has not ended within 0.1 s" in answer.err


def test_enqueue_with_wait_prints_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    from django_agentexec.terminal import result

    get_result = result.get_result
    monkeypatch.setattr(result, "get_result", lambda *arguments: (drain(), get_result(*arguments))[1])

    answer = call("agents", "enqueue", "shout", '{"text": "hi"}', "--wait")

    assert (answer.code, json.loads(answer.out)) == (0, "HI")


def test_enqueue_works_while_redis_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise QueueUnavailable("Redis is down.")

    monkeypatch.setattr(RedisQueue, "enqueue", refuse)

    assert call("agents", "enqueue", "shout").code == 0
    assert Activity.objects.get().status == Status.QUEUED


def test_a_closed_pipe_causes_no_traceback() -> None:
    keyed.enqueue_many([keyed.context_type(key=str(number)) for number in range(2_000)])
    command = [sys.executable, "-m", "django", "agents", "list", "--limit", "2000"]

    with subprocess.Popen(command, stdout=PIPE, stderr=PIPE, text=True, env=environment()) as process:
        assert process.stdout
        assert process.stdout.readline().startswith("id")
        process.stdout.close()
        assert process.stderr
        assert "Error" not in process.stderr.read()

    assert process.returncode == 0


@override_settings(CHANNEL_LAYERS={})
def test_warnings_of_system_checks_are_not_printed_at_each_call() -> None:
    assert [message.id for message in run_checks(tags=["agentexec"])] == ["agentexec.W021"]

    out, err = StringIO(), StringIO()
    Command(stdout=out, stderr=err).check()

    assert (out.getvalue(), err.getvalue()) == ("", "")


def test_errors_of_system_checks_refuse_the_call() -> None:
    answer = run("agents", "list", CONCURRENCY=0)

    assert answer.code == 1
    assert "agentexec.E001" in answer.err
