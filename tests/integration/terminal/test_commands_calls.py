"""Calls in the terminal."""

from __future__ import annotations

import json
from io import StringIO

import pytest
from django.core.management import call_command

from django_agentexec.models import AgentCall
from tests.support.recorded_calls import run, two_look_ups

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("durable_tasks")]


def output(*arguments: str) -> str:
    out = StringIO()
    call_command("agentexec", *arguments, stdout=out, stderr=StringIO())
    return out.getvalue()


def test_show_prints_the_tree_of_calls_on_request() -> None:
    row = run(two_look_ups())
    assert "look_up" not in output("show", str(row.pk)).split("log\n")[0]
    text = output("show", str(row.pk), "--calls")
    lines = [line for line in text.partition("calls\n")[2].splitlines() if line.strip()]
    assert [lines[0].split()[-1], lines[1].split()[-1]] == ["state", "done"]  # the last column: it contains errors
    assert [line.split()[:3] for line in lines[1:4]] == [
        ["agent", "Clerk", "1"],
        ["·", "model", "ScriptedModel"],
        ["·", "tool", "look_up"],
    ]
    found = json.loads(output("show", str(row.pk), "--calls", "--json"))
    assert [each["id"] for each in found["items"]] == [str(each.id) for each in AgentCall.objects.of(row.agent_id)]


def test_a_fresh_retry_sets_the_calls_aside() -> None:
    row = run(two_look_ups(), fails=1)
    output("retry", str(row.pk), "--yes", "--fresh")
    assert not AgentCall.objects.of(row.agent_id).current().exists()
    assert "6 calls were set aside" in output("show", str(row.pk), "--calls")
