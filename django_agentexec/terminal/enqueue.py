"""`agentexec enqueue`: enqueue a task by name, with its context as JSON."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from pydantic import BaseModel, ValidationError

from ..activity import acting_as
from ..exceptions import InvalidContext, InvalidOption
from ..tasks import AnyTask, enqueue, registry
from ..tasks.authorization import check_authorized
from ..tasks.context_input import MORE_ERRORS, field_problems, read_context
from ..tasks.options import EnqueueOptions
from .arguments import add_metadata, priority, seconds
from .command import OK, Output, Subcommand, account_actor
from .result import DEFAULT_TIMEOUT, write_result
from .selection import find_user
from .text import cut, one_line

MAX_INPUT = 61  # characters of a rejected value in an error message, with the ellipsis


class Enqueue(Subcommand):
    """The enqueue of a task."""

    help = gettext_lazy("enqueue a task, and print the id of its activity")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare task, context and options."""
        parser.add_argument("task", help=_("name of the task"))
        context_help = _("context as JSON; `-` reads it from stdin, `@FILE` from a file (default: {})")
        parser.add_argument("context", nargs="?", default="{}", help=context_help)
        priority_help = _("high, normal or low (default: the task's)")
        parser.add_argument("--priority", type=priority, metavar="NAME", help=priority_help)
        delay_help = _("time until the activity is due: seconds, or a duration such as 10m (default: 0)")
        parser.add_argument("--delay", type=seconds, metavar="TIME", help=delay_help)
        parser.add_argument("--queue", metavar="NAME", help=_("name of the queue (default: the task's)"))
        key_help = _("key of this enqueue; a later enqueue with the same key returns the same activity")
        parser.add_argument("--idempotency-key", metavar="KEY", help=key_help)
        user_help = _("act as this user of the project: the task's authorize is called, and the user is recorded")
        parser.add_argument("--user", metavar="NAME", help=user_help)
        parser.add_argument(
            "--wait",
            action="store_true",
            help=_("wait for the end of the activity, and print its result instead of its id"),
        )
        timeout_help = _("maximum time of --wait (default: %(seconds)s s)") % {"seconds": f"{DEFAULT_TIMEOUT:g}"}
        parser.add_argument("--timeout", type=seconds, metavar="TIME", help=timeout_help)
        json_help = _("print JSON with agent_id, agent_type, created and status_url")
        parser.add_argument("--json", action="store_true", help=json_help)
        add_metadata(parser, _("metadata of the activity; may be repeated"))

    def run(self, out: Output, options: dict[str, Any]) -> int:
        """Enqueue; write the id or, with `--wait`, the result."""
        if options["timeout"] is not None and not options["wait"]:
            raise InvalidOption(_("--timeout requires --wait."))
        definition = registry.get(options["task"])
        context = parse_context(definition, read_text(options["context"]))
        given = _enqueue_options(options)
        user = find_user(options["user"]) if options["user"] is not None else None
        if user is not None:
            check_authorized(definition, user, context, given.get("metadata") or {})
        with acting_as(user or account_actor()):
            handle = enqueue(definition, context, **given)
        if not handle.created:
            text = _("An activity with this idempotency key already exists: %(agent_id)s")
            out.note(text % {"agent_id": handle.agent_id})
        if options["wait"]:
            out.note(_("Waiting for %(agent_id)s.") % {"agent_id": handle.agent_id})
            timeout = DEFAULT_TIMEOUT if options["timeout"] is None else options["timeout"]
            return write_result(out, handle.agent_id, timeout)
        if options["json"]:
            fields = {"agent_id": str(handle.agent_id), "agent_type": handle.agent_type}
            out.json({**fields, "created": handle.created, "status_url": handle.status_url})
        else:
            out.write(str(handle.agent_id))
        return OK


def _enqueue_options(options: dict[str, Any]) -> EnqueueOptions:
    return {
        "priority": options["priority"],
        "metadata": dict(options["metadata"] or []),
        "delay": options["delay"],
        "queue": options["queue"],
        "idempotency_key": options["idempotency_key"],
    }


def read_text(text: str) -> str:
    """Return the argument itself, stdin for `-`, or the content of a file for `@file`. Raises `InvalidOption`."""
    if text == "-":
        return sys.stdin.read()
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        message = _("The context %(file)s cannot be read: %(error)s")
        raise InvalidOption(message % {"file": text, "error": error}) from error


def parse_context(definition: AnyTask, text: str) -> BaseModel:
    """Return the context; raise `InvalidContext` that names every invalid field."""
    try:
        return read_context(definition, text)
    except ValidationError as error:
        lines = []
        for problem in field_problems(error):
            given = _("given: %(value)s") % {"value": cut(one_line(repr(problem.input)), MAX_INPUT)}
            suffix = "" if problem.is_missing or problem.code == MORE_ERRORS else f" ({given})"
            lines.append(f"  {problem.path or 'context'}: {problem.message}{suffix}")
        message = _("The context does not fit task %(task)r (%(model)s):")
        names = {"task": definition.name, "model": definition.context_type.__name__}
        raise InvalidContext("\n".join([message % names, *lines])) from error
    except Exception as error:  # validators of the model may raise any exception
        message = _("The context of task %(task)r cannot be read: %(error)s")
        raise InvalidContext(message % {"task": definition.name, "error": one_line(error)}) from error
