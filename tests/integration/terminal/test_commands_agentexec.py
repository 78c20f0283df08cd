"""`manage.py agentexec`: its subcommands, the former commands as aliases, and the types of the tasks."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management import BaseCommand, load_command_class

from django_agentexec import Priority, Status
from django_agentexec.management.commands.agentexec import Command
from django_agentexec.models import Activity
from tests.support.activity_rows import row
from tests.support.management_commands import call, execute, run
from tests.testapp.agents import Text, shout

pytestmark = pytest.mark.django_db(transaction=True)

SUBCOMMANDS = [
    "run",
    "run-one",
    "monitor",
    "list",
    "show",
    "cancel",
    "retry",
    "approvals",
    "enqueue",
    "result",
    "pause",
    "resume",
    "workers",
    "health",
    "prune",
    "types",
    "usage",
    "budgets",
]
ALIASES = {
    ("agentmonitor",): "monitor",
    ("agentworkers",): "workers",
    ("agentexec_health",): "health",
    ("prune_activities",): "prune",
    ("runagentworkers",): "run",
    **{("agents", name): name for name in ("list", "show", "cancel", "retry", "enqueue", "result")},
}


def parser_of(command: str, *subcommands: str) -> argparse.ArgumentParser:
    """Return the parser of a command, or of its subcommand."""
    parser: argparse.ArgumentParser = load_command_class("django_agentexec", command).create_parser("", command)
    for name in subcommands:
        (group,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
        parser = group.choices[name]
    return parser


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    names = {name for action in parser._actions for name in (action.option_strings or [action.dest])}
    django = {name for action in BaseCommand().create_parser("", "")._actions for name in action.option_strings}
    return names - django


def test_the_help_lists_every_subcommand() -> None:
    assert list(Command.subcommands) == SUBCOMMANDS

    answer = execute("agentexec", "--help")

    assert answer.code == 0
    for name in SUBCOMMANDS:
        assert f"\n    {name} " in answer.out


def help_texts(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield the help texts of a subcommand and of the subcommands below it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield inner.description or ""
                yield from help_texts(inner)
        else:
            yield action.help or ""


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_the_help_describes_each_argument_and_marks_defaults(name: str) -> None:
    for text in help_texts(parser_of("agentexec", name)):
        assert len(text.split()) > 1, text
        assert not text.startswith(("(", "{", "may be repeated")), text
        assert not re.search(r"\((?!default:)[\d,]+( s)?\)", text), text


@pytest.mark.parametrize(("alias", "name"), ALIASES.items(), ids=lambda value: str(value))
def test_a_former_command_takes_the_arguments_of_its_subcommand(alias: tuple[str, ...], name: str) -> None:
    assert options_of(parser_of(*alias)) == options_of(parser_of("agentexec", name))


def test_a_subcommand_prints_the_same_json_as_the_former_command() -> None:
    agent_id = str(shout.enqueue(Text()).agent_id)

    for arguments in (["list", "--json"], ["show", agent_id, "--json"]):
        assert call("agentexec", *arguments).out == call("agents", *arguments).out
    assert json.loads(call("agentexec", "workers", "--json").out) == []
    health = call("agentexec", "health", "--json")
    assert (health.code, json.loads(health.out)["ok"]) == (1, False)
    pruned = call("agentexec", "prune", "--older-than", "30d", "--json")
    assert json.loads(pruned.out) == {"deleted": 0, "dry_run": False}


@pytest.mark.parametrize(("arguments", "code"), [(["list", "--limit", "0"], 2), (["show", "0192"], 3), ([], 2)])
def test_the_exit_codes_are_those_of_the_former_commands(arguments: list[str], code: int) -> None:
    assert execute("agentexec", *arguments).code == code


@pytest.mark.parametrize("text", ["high", "HIGH", "1"])
def test_a_priority_is_given_by_name_or_number(text: str) -> None:
    assert call("agentexec", "enqueue", "shout", "--priority", text).code == 0
    assert Activity.objects.get().priority == Priority.HIGH


def test_an_unknown_priority_is_refused_with_the_names() -> None:
    answer = execute("agentexec", "enqueue", "shout", "--priority", "2")

    assert answer.code == 2
    assert "give high, normal or low" in answer.err


def test_run_starts_a_pool() -> None:
    agent_id = shout.enqueue(Text(text="hi")).agent_id

    answer = run("agentexec", "run", "--burst", "--workers", "1", "--no-scheduler")

    assert answer.code == 0, answer.err
    assert "1 process x " in answer.out
    assert (row(agent_id).status, row(agent_id).result) == (Status.COMPLETE, "HI")


def test_run_refuses_what_the_former_command_refuses() -> None:
    answer = execute("agentexec", "run", "--queues", "no name")

    assert answer.code == 1
    assert "--queues" in answer.err


def test_types_describes_context_and_result_of_each_task() -> None:
    answer = call("agentexec", "types")

    tasks = {described["name"]: described for described in json.loads(answer.out)}
    assert list(tasks) == sorted(tasks)
    report = tasks["report"]
    assert (report["queue"], report["priority"], report["api"]) == ("default", "normal", False)
    assert report["context"]["type"] == "tests.testapp.agents.Text"
    assert report["context"]["schema"]["properties"]["text"]["type"] == "string"
    assert report["context"]["schema"]["additionalProperties"] is False
    assert report["result"]["type"] == "tests.testapp.agents.Report"
    assert set(report["result"]["schema"]["properties"]) == {"title", "words"}
    assert tasks["shout"]["result"] == {"type": "str", "schema": {"type": "string"}}


def test_types_of_named_tasks_are_written_to_a_file(tmp_path: Path) -> None:
    file = tmp_path / "types.json"

    answer = call("agentexec", "types", "shout", "--output", str(file))

    assert (answer.code, answer.out) == (0, "")
    assert [described["name"] for described in json.loads(file.read_text())] == ["shout"]


def test_types_of_an_unknown_task_are_exit_code_3() -> None:
    answer = call("agentexec", "types", "shuot")

    assert answer.code == 3
    assert "Did you mean 'shout'?" in answer.err
