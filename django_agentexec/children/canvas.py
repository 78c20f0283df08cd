"""`group`, `chain` and `chord`, modeled on Celery's canvas: activities that spawn and gather their calls.

Each is a task whose children are the calls, so it can be followed, canceled and retried like any other task. It
occupies no slot while its children run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, TypeVar, Unpack, cast, get_type_hints, overload
from uuid import UUID

from asgiref.sync import sync_to_async
from pydantic import BaseModel, PlainSerializer, PlainValidator

from ..blocking import blocking
from ..exceptions import InvalidContext, InvalidOption
from ..registry import get_task
from ..serialization.comparison import Comparison
from ..serialization.flow import fits, type_name
from ..tasks.attempt import Attempt
from ..tasks.definition import RESULT_COMPARISON, AnyTask, Task
from ..tasks.enqueue import enqueue
from ..tasks.options import EnqueueOptions
from ..tasks.registry import registry, task
from ..tasks.run import Run
from ..validation import json_result

C = TypeVar("C", bound=BaseModel)
C1 = TypeVar("C1", bound=BaseModel)
C2 = TypeVar("C2", bound=BaseModel)
C3 = TypeVar("C3", bound=BaseModel)
T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")

Call = tuple[str | AnyTask, BaseModel]
"""A task and its context."""

AnyCall = tuple[object, BaseModel]
"""A call in a list of calls of different tasks, as mypy infers its type."""

RESULTS = "results"
"""The field of the callback's context that receives the results of a chord."""


class StoredCall(BaseModel):
    """A call in JSON form."""

    task: str
    context: dict[str, Any]


class GroupContext(BaseModel):
    """The context of a group."""

    calls: list[StoredCall]


class ChainContext(BaseModel):
    """The context of a chain: the first call and the names of the following tasks."""

    first: StoredCall
    then: list[str]


class ChordContext(GroupContext):
    """The context of a chord: the calls, the callback and further fields of the callback's context."""

    callback: str
    fields: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Returned:
    """A result with the name of the task that defines its type. Equal to the loaded result."""

    task: str
    value: Any

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Returned):
            return self.task == other.task and self.value == other.value
        # Excluded fields were handled when the child's task stored the result.
        return RESULT_COMPARISON.first_difference(self.value, other) is None

    __hash__ = None  # type: ignore[assignment]  # unhashable, like any class that defines only __eq__


def _read(value: Any) -> Any:
    """Return a stored result in its type, and a result returned by a handler unchanged."""
    return value if isinstance(value, Returned) else registry.get(value["task"]).load_result(value["result"])


def _write(returned: Returned) -> dict[str, Any]:
    definition = registry.get(returned.task)
    return {"task": returned.task, "result": json.loads(definition.store_result(returned.value))}


Typed = Annotated[Any, PlainValidator(_read), PlainSerializer(_write)]
"""A result that is stored with the name of its task and loaded in the result type of that task."""


@overload
def group(*calls: tuple[Task[C, ..., Any, T], C], **options: Unpack[EnqueueOptions]) -> Run[list[T]]: ...
@overload
def group(
    call1: tuple[Task[C1, ..., Any, T1], C1],
    call2: tuple[Task[C2, ..., Any, T2], C2],
    /,
    **options: Unpack[EnqueueOptions],
) -> Run[list[T1 | T2]]: ...
@overload
def group(
    call1: tuple[Task[C1, ..., Any, T1], C1],
    call2: tuple[Task[C2, ..., Any, T2], C2],
    call3: tuple[Task[C3, ..., Any, T3], C3],
    /,
    **options: Unpack[EnqueueOptions],
) -> Run[list[T1 | T2 | T3]]: ...
@overload
def group(
    call1: AnyCall,
    call2: AnyCall,
    call3: AnyCall,
    call4: AnyCall,
    /,
    *calls: AnyCall,
    **options: Unpack[EnqueueOptions],
) -> Run[list[Any]]: ...
@overload
def group(*calls: tuple[str, BaseModel], **options: Unpack[EnqueueOptions]) -> Run[list[Any]]: ...
@blocking
def group(*calls: AnyCall, **options: Unpack[EnqueueOptions]) -> Run:
    """Run calls in parallel: `group((research, acme), (research, globex))`. The result is the list of their results.

    If calls fail, the group fails after all calls have ended, with the error of the first failed call in order. Takes
    the options of `enqueue`. Raises the exceptions of `enqueue` for every call before anything is written.
    """
    if not calls:
        raise InvalidOption("A group needs at least one call: group((task, context), ...).")
    return enqueue("agentexec.group", GroupContext(calls=[_stored(call) for call in calls]), **options)


@overload
def chain(first: tuple[Task[C, ..., Any, T], C], /, **options: Unpack[EnqueueOptions]) -> Run[T]: ...
@overload
def chain(
    first: tuple[Task[C, ..., Any, Any], C], second: Task[Any, ..., Any, T], /, **options: Unpack[EnqueueOptions]
) -> Run[T]: ...
@overload
def chain(
    first: tuple[Task[C, ..., Any, Any], C],
    second: AnyTask,
    third: Task[Any, ..., Any, T],
    /,
    **options: Unpack[EnqueueOptions],
) -> Run[T]: ...
@overload
def chain(
    first: tuple[Task[C, ..., Any, Any], C],
    second: AnyTask,
    third: AnyTask,
    fourth: AnyTask,
    /,
    *then: AnyTask,
    **options: Unpack[EnqueueOptions],
) -> Run[Any]: ...
@overload
def chain(first: tuple[str, BaseModel], *then: str | AnyTask, **options: Unpack[EnqueueOptions]) -> Run[Any]: ...
@blocking
def chain(first: Call, *then: str | AnyTask, **options: Unpack[EnqueueOptions]) -> Run:
    """Run tasks one after the other: `chain((research, acme), summarize, publish)`. Returns the last task's result.

    Each result is the context of the next task. Raises `InvalidOption` if the types do not match, and the exceptions
    of `enqueue`, before anything is written.
    """
    definitions = [get_task(first[0]), *map(get_task, then)]
    for definition, following in pairwise(definitions):
        produced = get_type_hints(definition.handler, include_extras=True).get("return", Any)
        if not fits(produced, following.context_type):
            raise InvalidOption(
                f"Task {definition.name!r} returns {type_name(produced)}, but the next task of the chain, "
                f"{following.name!r}, takes {following.context_type.__name__}."
            )
    context = ChainContext(first=_stored(first), then=[definition.name for definition in definitions[1:]])
    return enqueue("agentexec.chain", context, **options)


@overload
def chord(
    calls: Sequence[AnyCall],
    callback: Task[Any, ..., Any, T],
    *,
    fields: Mapping[str, Any] | None = None,
    **options: Unpack[EnqueueOptions],
) -> Run[T]: ...
@overload
def chord(
    calls: Sequence[AnyCall],
    callback: str,
    *,
    fields: Mapping[str, Any] | None = None,
    **options: Unpack[EnqueueOptions],
) -> Run[Any]: ...
@blocking
def chord(
    calls: Sequence[AnyCall],
    callback: str | AnyTask,
    *,
    fields: Mapping[str, Any] | None = None,
    **options: Unpack[EnqueueOptions],
) -> Run:
    """Run calls in parallel, then `callback` with their results. The result is that of the callback.

    The callback's context is a model with a list field `results`; `fields` contains the values of its other fields.
    Raises the exceptions of `group`, and `InvalidOption` if the callback's context has no field `results`.
    """
    definition = get_task(callback)
    if RESULTS not in definition.context_type.model_fields:
        raise InvalidOption(
            f"Task {definition.name!r} takes a {definition.context_type.__name__}, but the callback of a chord "
            f"receives the results in a field {RESULTS!r}. Add a list field of this name to the context."
        )
    stored_fields = _stored_fields(definition, dict(fields or {}))
    context = ChordContext(calls=[_stored(call) for call in calls], callback=definition.name, fields=stored_fields)
    return enqueue("agentexec.chord", context, **options)


@overload
async def agroup(*calls: tuple[Task[C, ..., Any, T], C], **options: Unpack[EnqueueOptions]) -> Run[list[T]]: ...
@overload
async def agroup(
    call1: tuple[Task[C1, ..., Any, T1], C1],
    call2: tuple[Task[C2, ..., Any, T2], C2],
    /,
    **options: Unpack[EnqueueOptions],
) -> Run[list[T1 | T2]]: ...
@overload
async def agroup(
    call1: tuple[Task[C1, ..., Any, T1], C1],
    call2: tuple[Task[C2, ..., Any, T2], C2],
    call3: tuple[Task[C3, ..., Any, T3], C3],
    /,
    **options: Unpack[EnqueueOptions],
) -> Run[list[T1 | T2 | T3]]: ...
@overload
async def agroup(
    call1: AnyCall,
    call2: AnyCall,
    call3: AnyCall,
    call4: AnyCall,
    /,
    *calls: AnyCall,
    **options: Unpack[EnqueueOptions],
) -> Run[list[Any]]: ...
@overload
async def agroup(*calls: tuple[str, BaseModel], **options: Unpack[EnqueueOptions]) -> Run[list[Any]]: ...
async def agroup(*calls: AnyCall, **options: Unpack[EnqueueOptions]) -> Run:
    """Async version of `group`."""
    return await sync_to_async(group)(*calls, **options)  # type: ignore[arg-type]  # one of the overloads


@overload
async def achain(first: tuple[Task[C, ..., Any, T], C], /, **options: Unpack[EnqueueOptions]) -> Run[T]: ...
@overload
async def achain(
    first: tuple[Task[C, ..., Any, Any], C], second: Task[Any, ..., Any, T], /, **options: Unpack[EnqueueOptions]
) -> Run[T]: ...
@overload
async def achain(
    first: tuple[Task[C, ..., Any, Any], C],
    second: AnyTask,
    third: Task[Any, ..., Any, T],
    /,
    **options: Unpack[EnqueueOptions],
) -> Run[T]: ...
@overload
async def achain(
    first: tuple[Task[C, ..., Any, Any], C],
    second: AnyTask,
    third: AnyTask,
    fourth: AnyTask,
    /,
    *then: AnyTask,
    **options: Unpack[EnqueueOptions],
) -> Run[Any]: ...
@overload
async def achain(first: tuple[str, BaseModel], *then: str | AnyTask, **options: Unpack[EnqueueOptions]) -> Run[Any]: ...
async def achain(first: Call, *then: str | AnyTask, **options: Unpack[EnqueueOptions]) -> Run:
    """Async version of `chain`."""
    return await sync_to_async(chain)(first, *then, **options)  # type: ignore[arg-type]  # as above


@overload
async def achord(
    calls: Sequence[AnyCall],
    callback: Task[Any, ..., Any, T],
    *,
    fields: Mapping[str, Any] | None = None,
    **options: Unpack[EnqueueOptions],
) -> Run[T]: ...
@overload
async def achord(
    calls: Sequence[AnyCall],
    callback: str,
    *,
    fields: Mapping[str, Any] | None = None,
    **options: Unpack[EnqueueOptions],
) -> Run[Any]: ...
async def achord(
    calls: Sequence[AnyCall],
    callback: str | AnyTask,
    *,
    fields: Mapping[str, Any] | None = None,
    **options: Unpack[EnqueueOptions],
) -> Run:
    """Async version of `chord`."""
    return await sync_to_async(chord)(calls, callback, fields=fields, **options)  # type: ignore[arg-type]  # as above


@task("agentexec.group", max_retries=0)
async def run_group(agent_id: UUID, context: GroupContext, attempt: Attempt) -> list[Typed]:
    """Spawn the calls of a group and return their results."""
    return await _results(context.calls, attempt)


@task("agentexec.chain", max_retries=0)
async def run_chain(agent_id: UUID, context: ChainContext, attempt: Attempt) -> Typed:
    """Spawn the tasks of a chain one after the other and return the last result."""
    definition = registry.get(context.first.task)
    value: Any = definition.load_context(json.dumps(context.first.context))
    for number, name in enumerate([context.first.task, *context.then]):
        definition = registry.get(name)
        if not isinstance(value, definition.context_type):
            # The previous task has no return annotation.
            value = definition.load_context(json.dumps(value), source="The result of the previous task")
        (value,) = await attempt.agather(attempt.aspawn(definition, value, key=f"{number}"))
    return Returned(definition.name, value)


@task("agentexec.chord", max_retries=0)
async def run_chord(agent_id: UUID, context: ChordContext, attempt: Attempt) -> Typed:
    """Spawn the calls of a chord, then its callback, and return the result of the callback."""
    results = [_write(returned)["result"] for returned in await _results(context.calls, attempt)]
    definition = registry.get(context.callback)
    content = json.dumps({**context.fields, RESULTS: results})
    arguments = definition.load_context(content, source="The list of results")
    (value,) = await attempt.agather(attempt.aspawn(definition, arguments, key="callback"))
    return Returned(definition.name, value)


async def _results(calls: Sequence[StoredCall], attempt: Attempt) -> list[Returned]:
    if not calls:
        return []  # without arguments, `agather` returns the results of all children
    by_task: dict[str, list[int]] = {}
    for number, call in enumerate(calls):
        by_task.setdefault(call.task, []).append(number)
    handles: dict[int, Run] = {}
    for name, numbers in by_task.items():
        definition = registry.get(name)
        contexts = [definition.load_context(json.dumps(calls[number].context)) for number in numbers]
        children = await attempt.aspawn_many(definition, contexts, keys=[str(number) for number in numbers])
        handles |= dict(zip(numbers, children, strict=True))
    values = await attempt.agather(*(handles[number] for number in range(len(calls))))
    return [Returned(call.task, value) for call, value in zip(calls, values, strict=True)]


def _stored_fields(definition: AnyTask, fields: dict[str, Any]) -> dict[str, Any]:
    """Return fields of a callback's context as JSON. Raises `InvalidOption` if they would load as other values."""
    content: dict[str, Any] = json_result(fields)
    try:
        expected = definition.context_type.model_validate({**fields, RESULTS: []}, by_alias=True, by_name=True)
        loaded = definition.load_context(json.dumps({**content, RESULTS: []}))
    except Exception:  # noqa: BLE001  # such as results that must not be empty; raised when the callback is spawned
        return content
    if difference := Comparison().first_difference(expected, loaded):
        raise InvalidOption(
            f"The fields of the chord's callback {definition.name!r} change when stored as JSON, at {difference}."
        )
    return content


def _stored(call: AnyCall) -> StoredCall:
    if not (isinstance(call, tuple) and len(call) == 2):
        raise InvalidContext(f"A call is a tuple (task, context) such as (research, context), not {call!r:.100}.")
    definition = get_task(cast(str | AnyTask, call[0]))
    (row,) = definition.new_rows([call[1]])  # validates the context as `enqueue` does
    return StoredCall(task=definition.name, context=row.context)
