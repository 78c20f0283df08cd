"""`agents enqueue`: put a task into its queue by name, with its context as JSON."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ..activity import acting_as
from ..exceptions import InvalidContext, InvalidOption
from ..models import Priority
from ..tasks import TaskDefinition, enqueue, registry
from ..tasks.authorization import check_authorized
from ..tasks.context_input import read_context
from ..tasks.options import EnqueueOptions
from .command import OK, Output
from .durations import seconds
from .outcome import WAIT, answer
from .selection import add_metadata
from .text import one_line
from .users import HELP as USER_HELP
from .users import account, user_of

HELP = "have a worker run a task; prints the id"
SHOWN_INPUT = 60  # characters of a refused value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare task, context and options."""
    parser.add_argument("task", help="its name")
    parser.add_argument(
        "context", nargs="?", default="{}", help="JSON; `-` reads it from stdin, `@file` from a file ({})"
    )
    parser.add_argument("--priority", choices=[p.name.lower() for p in Priority], help="the task's unless given")
    parser.add_argument("--delay", type=seconds, metavar="TIME", help="seconds, or such as 10m: not before")
    parser.add_argument("--queue", metavar="NAME", help="the task's unless given")
    parser.add_argument("--idempotency-key", metavar="KEY", help="the same key leads to the first one's activity")
    parser.add_argument("--user", metavar="NAME", help=USER_HELP)
    parser.add_argument("--wait", action="store_true", help="wait for the end, and print the result instead")
    parser.add_argument(
        "--timeout", type=seconds, default=WAIT, metavar="TIME", help=f"how long --wait waits ({WAIT:g} s)"
    )
    parser.add_argument("--json", action="store_true", help="print agent_id, agent_type, created and status_url")
    add_metadata(parser, "metadata of the activity; may be given several times")


def run(out: Output, options: dict[str, Any]) -> int:
    """Enqueue; write the id, or with `--wait` the result."""
    definition = registry.get(options["task"])
    context = context_of(definition, read_text(options["context"]))
    given = _options(options)
    user = user_of(options["user"]) if options["user"] else None
    if user is not None:
        check_authorized(definition, user, context, given.get("metadata") or {})
    with acting_as(user or account()):
        handle = enqueue(definition, context, **given)
    if not handle.created:
        out.note(f"The idempotency key led to an activity that was there already: {handle.agent_id}")
    if options["wait"]:
        out.note(f"Waiting for {handle.agent_id}.")
        return answer(out, handle.agent_id, options["timeout"])
    if options["json"]:
        fields = {"agent_id": str(handle.agent_id), "agent_type": handle.agent_type}
        out.json({**fields, "created": handle.created, "status_url": handle.status_url})
    else:
        out.write(str(handle.agent_id))
    return OK


def _options(options: dict[str, Any]) -> EnqueueOptions:
    priority = options["priority"]
    return {
        "priority": Priority[priority.upper()] if priority else None,
        "metadata": dict(options["metadata"] or []),
        "delay": options["delay"],
        "queue": options["queue"],
        "idempotency_key": options["idempotency_key"],
    }


def read_text(text: str) -> str:
    """Return the context as it is given: itself, stdin for `-`, or the content of `@file`. Raises `InvalidOption`."""
    if text == "-":
        return sys.stdin.read()
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidOption(f"The context {text} cannot be read: {error}") from error


def context_of(definition: TaskDefinition[..., Any], text: str) -> BaseModel:
    """Return the context; raise `InvalidContext` that names every field which does not fit."""
    try:
        return read_context(definition, text)
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_url=False, include_context=False):
            field = ".".join(map(str, problem["loc"])) or "context"
            given = "" if problem["type"] == "missing" else f" (given: {_shown(problem['input'])})"
            lines.append(f"  {field}: {problem['msg']}{given}")
        raise InvalidContext(
            f"The context does not fit task {definition.name!r} ({definition.context_type.__name__}):\n"
            + "\n".join(lines)
        ) from error
    except Exception as error:  # a model's own validators may raise anything
        raise InvalidContext(f"The context of task {definition.name!r} cannot be read: {one_line(error)}") from error


def _shown(value: object) -> str:
    text = one_line(repr(value))
    return text if len(text) <= SHOWN_INPUT else text[:SHOWN_INPUT] + "..."
