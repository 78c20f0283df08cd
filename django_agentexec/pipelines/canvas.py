"""`group`, `chain` and `chord`, as people know them from Celery: activities that spawn, gather and return.

Each is a task of its own whose children are the calls, so that it can be watched, canceled and retried as
any other; while its children run it has no slot.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Unpack, get_type_hints
from uuid import UUID

from asgiref.sync import sync_to_async
from pydantic import BaseModel, PlainSerializer, PlainValidator

from ..exceptions import InvalidContext, InvalidOption
from ..serialization.comparison import Comparison
from ..tasks.attempt import Attempt
from ..tasks.definition import RESULT_COMPARISON, TaskDefinition
from ..tasks.enqueue import ActivityHandle, definition_of, enqueue, new_rows
from ..tasks.options import EnqueueOptions
from ..tasks.registry import registry, task
from ..validation import json_result
from .flow import fits, type_name

Task = str | TaskDefinition[..., Any]
Call = tuple[Task, BaseModel]
"""A task and its context."""

RESULTS = "results"
"""The field of a chord's callback's context that gets the results."""


class StoredCall(BaseModel):
    """A call as JSON."""

    task: str
    context: dict[str, Any]


class GroupContext(BaseModel):
    """The calls of a group."""

    calls: list[StoredCall]


class ChainContext(BaseModel):
    """A chain's first call, and the tasks that follow."""

    first: StoredCall
    then: list[str]


class ChordContext(GroupContext):
    """The calls of a chord, its callback, and fields of the callback's context."""

    callback: str
    fields: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Returned:
    """A result, with the task that knows its type. Equal to the result itself, as which it is loaded."""

    task: str
    value: Any

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Returned):
            return self.task == other.task and self.value == other.value
        # What it leaves out was decided when it was stored, by its own task.
        return RESULT_COMPARISON.first_difference(self.value, other) is None

    __hash__ = None  # type: ignore[assignment]  # as of any class with an equality of its own


def _read(value: Any) -> Any:
    """Return a stored result in its type; what a handler returns stays as it is."""
    return value if isinstance(value, Returned) else registry.get(value["task"]).load_result(value["result"])


def _write(returned: Returned) -> dict[str, Any]:
    definition = registry.get(returned.task)
    return {"task": returned.task, "result": json.loads(definition.store_result(returned.value))}


Typed = Annotated[Any, PlainValidator(_read), PlainSerializer(_write)]
"""A result that is stored with its task's name, and read back in its task's type."""


def group(*calls: Call, **options: Unpack[EnqueueOptions]) -> ActivityHandle:
    """Run calls in parallel: `group((research, acme), (research, globex))`. The result is theirs, in order.

    It fails with the first of them (in order) that fails, when all have ended. Options as for `enqueue`. Raises
    what `enqueue` raises for any call, with nothing written.
    """
    if not calls:
        raise InvalidOption("A group needs one call at least: group((task, context), ...).")
    return enqueue("agentexec.group", GroupContext(calls=[_stored(call) for call in calls]), **options)


def chain(first: Call, *then: Task, **options: Unpack[EnqueueOptions]) -> ActivityHandle:
    """Run tasks one after the other: `chain((research, acme), summarize, publish)`. The result is the last one's.

    Each result is the context of the next task. Raises `InvalidOption` where the types do not fit, and what
    `enqueue` raises, with nothing written.
    """
    definitions = [definition_of(first[0]), *map(definition_of, then)]
    for one, following in pairwise(definitions):
        produced = get_type_hints(one.handler, include_extras=True).get("return", Any)
        if not fits(produced, following.context_type):
            raise InvalidOption(
                f"Task {one.name!r} returns {type_name(produced)}, but the next one in the chain, {following.name!r}, "
                f"takes {following.context_type.__name__}."
            )
    context = ChainContext(first=_stored(first), then=[definition.name for definition in definitions[1:]])
    return enqueue("agentexec.chain", context, **options)


def chord(
    calls: Sequence[Call],
    callback: Task,
    *,
    fields: Mapping[str, Any] | None = None,
    **options: Unpack[EnqueueOptions],
) -> ActivityHandle:
    """Run calls in parallel, then `callback` with their results. The result is the callback's.

    The callback's context is a model with a field `results`, a list; `fields` gives its other fields. Raises as
    `group` does, and `InvalidOption` if the callback has no such field.
    """
    definition = definition_of(callback)
    if RESULTS not in definition.context_type.model_fields:
        raise InvalidOption(
            f"Task {definition.name!r} takes a {definition.context_type.__name__}, but the callback of a chord gets "
            f"the results in a field {RESULTS!r}: give its context one, a list."
        )
    given = _stored_fields(definition, dict(fields or {}))
    context = ChordContext(calls=[_stored(call) for call in calls], callback=definition.name, fields=given)
    return enqueue("agentexec.chord", context, **options)


agroup = sync_to_async(group)
achain = sync_to_async(chain)
achord = sync_to_async(chord)


@task("agentexec.group", max_retries=0)
async def run_group(agent_id: UUID, context: GroupContext, attempt: Attempt) -> list[Typed]:
    """Run a group."""
    return await _results(context.calls, attempt)


@task("agentexec.chain", max_retries=0)
async def run_chain(agent_id: UUID, context: ChainContext, attempt: Attempt) -> Typed:
    """Run a chain."""
    definition = registry.get(context.first.task)
    value: Any = definition.load_context(json.dumps(context.first.context))
    for number, name in enumerate([context.first.task, *context.then]):
        definition = registry.get(name)
        if not isinstance(value, definition.context_type):
            value = definition.load_context(json.dumps(value))  # of a task without a return annotation
        (value,) = await attempt.agather(attempt.aspawn(definition, value, key=f"{number}"))
    return Returned(definition.name, value)


@task("agentexec.chord", max_retries=0)
async def run_chord(agent_id: UUID, context: ChordContext, attempt: Attempt) -> Typed:
    """Run a chord."""
    results = [_write(returned)["result"] for returned in await _results(context.calls, attempt)]
    definition = registry.get(context.callback)
    arguments = definition.load_context(json.dumps({**context.fields, RESULTS: results}))
    (value,) = await attempt.agather(attempt.aspawn(definition, arguments, key="callback"))
    return Returned(definition.name, value)


async def _results(calls: Sequence[StoredCall], attempt: Attempt) -> list[Returned]:
    if not calls:
        return []  # a gather of nothing would be one of all children
    by_task: dict[str, list[int]] = {}
    for number, call in enumerate(calls):
        by_task.setdefault(call.task, []).append(number)
    handles: dict[int, ActivityHandle] = {}
    for name, numbers in by_task.items():
        definition = registry.get(name)
        contexts = [definition.load_context(json.dumps(calls[number].context)) for number in numbers]
        children = await attempt.aspawn_many(definition, contexts, keys=[str(number) for number in numbers])
        handles |= dict(zip(numbers, children, strict=True))
    values = await attempt.agather(*(handles[number] for number in range(len(calls))))
    return [Returned(call.task, value) for call, value in zip(calls, values, strict=True)]


def _stored_fields(definition: TaskDefinition[..., Any], fields: dict[str, Any]) -> dict[str, Any]:
    """Return fields of a callback's context as JSON; raise `InvalidOption` if it would load other values."""
    content: dict[str, Any] = json_result(fields)
    try:
        expected = definition.context_type.model_validate({**fields, RESULTS: []}, by_alias=True, by_name=True)
        loaded = definition.load_context(json.dumps({**content, RESULTS: []}))
    except Exception:  # noqa: BLE001  # such as results that must not be empty: told when the callback is spawned
        return content
    if difference := Comparison().first_difference(expected, loaded):
        raise InvalidOption(
            f"The fields of a chord's callback {definition.name!r} would reach it with another value at {difference}."
        )
    return content


def _stored(call: Call) -> StoredCall:
    if not (isinstance(call, tuple) and len(call) == 2):
        raise InvalidContext(f"A call is a task and its context, such as (research, context), not {call!r:.100}.")
    definition = definition_of(call[0])
    (row,) = new_rows(definition, [call[1]])  # checks the context as `enqueue` does
    return StoredCall(task=definition.name, context=row.context)
