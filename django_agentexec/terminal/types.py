"""`agentexec types`: the registered tasks with the JSON schemas of their contexts and results."""

from __future__ import annotations

import argparse
import inspect
from pathlib import Path
from typing import Any, get_type_hints

from django.core.management.base import CommandError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from pydantic.errors import PydanticInvalidForJsonSchema

from ..tasks import AnyTask, registry
from ..tasks.context_input import closed_schema
from .command import FAILED, OK, Output, Subcommand
from .text import to_json


class Types(Subcommand):
    """The type information of the registered tasks."""

    help = gettext_lazy("print name, context model and result type of the registered tasks, as JSON")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare tasks and output file."""
        parser.add_argument("tasks", nargs="*", metavar="task", help=_("name of a task (default: all tasks)"))
        parser.add_argument("--output", type=Path, metavar="FILE", help=_("write the JSON to this file"))

    def run(self, out: Output, options: dict[str, Any]) -> int:
        """Write the type information, by task name."""
        names = options["tasks"] or sorted(definition.name for definition in registry)
        described = [describe(registry.get(name)) for name in names]
        if options["output"] is None:
            out.json(described)
            return OK
        try:
            options["output"].write_text(to_json(described) + "\n", encoding="utf-8")
        except OSError as error:
            text = _("%(file)s cannot be written: %(error)s")
            raise CommandError(text % {"file": options["output"], "error": error}, returncode=FAILED) from error
        return OK


def describe(definition: AnyTask) -> dict[str, Any]:
    """Return name, context and result of a task; `schema` is None for a result that JSON Schema cannot describe."""
    model = definition.context_type
    hints = get_type_hints(definition.handler, include_extras=True)
    return {
        "name": definition.name,
        "description": inspect.cleandoc(definition.__doc__ or ""),
        "queue": definition.queue,
        "priority": definition.priority.name.lower(),
        "api": definition.api,
        "context": {
            "type": inspect.formatannotation(model),
            "schema": closed_schema(model.model_json_schema()),
        },
        "result": {
            "type": inspect.formatannotation(hints.get("return", Any)),
            "schema": _result_schema(definition),
        },
    }


def _result_schema(definition: AnyTask) -> dict[str, Any] | None:
    try:
        return definition.signature.result.json_schema(mode="serialization")
    except PydanticInvalidForJsonSchema:
        return None
