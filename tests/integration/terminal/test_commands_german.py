"""The commands with `LANGUAGE_CODE = "de"`: help, output and errors are German; names of the wire format stay."""

from __future__ import annotations

import pytest

from django_agentexec import activity
from django_agentexec.management.commands.agentexec import Command
from django_agentexec.models import Activity
from tests.support.activity_rows import start
from tests.support.approval_rows import waiting
from tests.support.catalogue import english_in
from tests.support.management_commands import Answer, call
from tests.support.recorded_calls import add_call
from tests.testapp.agents import Text, shout

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queue_in_memory", "german")]

UNKNOWN = "01920000-0000-7000-8000-000000000000"
# The values of these are machine-readable: statuses, names of checks, options.
WIRE = {"queued", "running", "complete", "error", "canceled", "approval"}


def command(*arguments: str) -> Answer:
    answer = call("agentexec", *arguments)
    assert english_in(answer.out + "\n" + answer.err) - WIRE == set(), arguments
    return answer


@pytest.mark.parametrize("name", Command.subcommands)
def test_help_is_german(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    call("agentexec", name, "--help")

    text = capsys.readouterr().out
    assert english_in(text, cells=False) == set()
    assert "Exit-Codes:" in text


def test_lists_and_details_are_german() -> None:
    failed, done = shout.enqueue(Text()).agent_id, shout.enqueue(Text()).agent_id
    start(failed)
    activity.error(failed, "kaputt")
    start(done)
    add_call(Activity.objects.get(pk=done), "model", name="large-2")
    activity.complete(done, result={"text": "fertig"})
    shout.enqueue(Text())

    assert "3 von 3 angezeigt." in command("list").err
    assert "Wiederholungen verbraucht" in command("show", str(failed)).out
    assert "erledigt" in command("show", str(done), "--calls").out
    assert "Keine Aktivität passt." in command("list", "--type", "other").err
    assert "1 eingereiht" in command("monitor", "--once").out
    assert "Von" in command("usage").err
    assert "In den letzten fünf Minuten" in command("workers").err
    command("health")
    assert "0 würden gelöscht." in command("prune", "--older-than", "30d", "--dry-run").out


def test_approvals_are_german() -> None:
    (approval,) = waiting()

    assert "Frage oder Argumente" in command("approvals").out
    assert "send_letter: approved" in command("approvals", "approve", str(approval.id)).out


def test_errors_are_german() -> None:
    done = shout.enqueue(Text()).agent_id
    start(done)
    activity.complete(done)

    assert f"Es gibt keine Aktivität {UNKNOWN}." in command("show", UNKNOWN).err
    assert "Meinten Sie 'shout'?" in command("enqueue", "shoutt").err
    assert "1 abgelehnt: schon abgeschlossen." in command("cancel", str(done), "--yes").out
    assert "Der Kontext passt nicht zum Task 'shout'" in command("enqueue", "shout", '{"text": []}').err
    assert "muss ein Metadaten-Schlüssel mit seinem Wert sein" in command("pause", "tenant", "acme").err
    assert "höchstens 500 Zeichen" in command("pause", "queue", "slow", "--reason", "x" * 501).err
    assert "ist kein Betrag in US-Dollar" in command("list", "--min-cost", "viel").err
    assert "Filter erfordern --all" in command("cancel", str(done), "--type", "shout", "--yes").err
