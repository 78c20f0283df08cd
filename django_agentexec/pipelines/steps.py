"""`@step`, which marks a method, and `Step`, what a pipeline knows of it."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError

from ..backoff import Backoff, Delay
from ..conf import conf
from ..exceptions import PipelineChanged, ResultError, TaskDefinitionError
from ..values import storable_json
from .flow import covers, tuple_parts, type_name

F = TypeVar("F", bound=Callable[..., Any])

MARK = "_agentexec_step"


@dataclass(frozen=True, slots=True)
class StepOptions:
    """What `@step` was given."""

    order: float
    description: str
    retries: int
    backoff: Delay
    timeout: float | None


def step(
    order: float, description: str = "", *, retries: int = 0, backoff: Delay | None = None, timeout: float | None = None
) -> Callable[[F], F]:
    """Mark a method, sync or async, as a step of its pipeline.

    - `order`: steps run from the lowest to the highest; each number once.
    - `description`: what the log and the diagram call it; the method's name unless said.
    - `retries`: tries after a failed one, inside the activity's attempt; then the activity's own retries follow.
    - `backoff`: seconds before retry n, as for tasks.
    - `timeout`: seconds for one try.

    Raises `TaskDefinitionError` for impossible values.
    """

    def refuse(name: str, value: object, expected: str) -> TaskDefinitionError:
        return TaskDefinitionError(f"@step({order!r}, {description!r}): {name}={value!r} must be {expected}.")

    if isinstance(order, bool) or not isinstance(order, (int, float)) or not math.isfinite(order):
        raise TaskDefinitionError(f"A step needs its place: @step(0, 'research'), not @step({order!r}).")
    if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
        raise refuse("retries", retries, "a whole number from 0")
    is_number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
    if timeout is not None and not (is_number and 0 < timeout < math.inf):
        raise refuse("timeout", timeout, "positive seconds")
    if backoff is not None and not callable(backoff):
        raise refuse("backoff", backoff, "a function of the retry's number and the exception")
    options = StepOptions(order, description, retries, backoff or Backoff(), timeout)

    def mark(method: F) -> F:
        setattr(method, MARK, options)
        return method

    return mark


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a pipeline, with its types read."""

    name: str
    options: StepOptions
    position: int
    """Its place among the steps, from 0."""
    is_async: bool
    parameters: tuple[Any, ...]
    """The annotated types of its parameters."""
    result: Any
    """The annotated type of its result."""
    adapter: TypeAdapter[Any]

    @property
    def title(self) -> str:
        """What people read."""
        return self.options.description or self.name

    @property
    def result_type(self) -> str:
        """The result's type, for people."""
        return type_name(self.result)[:500]

    def unpacked(self, value: Any) -> tuple[Any, ...]:
        """Return a result as the arguments of the next step."""
        if tuple_parts(self.result) is not None:
            return tuple(value)
        return () if self.result is type(None) else (value,)

    def stored(self, value: Any) -> Any:
        """Return a result as JSON values. Raises `ResultError` if it is not what the step declares, or too large."""
        try:
            text = storable_json(self.adapter.dump_json(self.adapter.validate_python(value), by_alias=False).decode())
        except (ValueError, TypeError) as error:  # pydantic's errors derive from ValueError
            raise ResultError(
                f"Step {self.name!r} returned {type(value).__name__}, which does not fit {self.result_type}: {error}"
            ) from error
        if len(text.encode()) > conf.MAX_RESULT_BYTES:
            raise ResultError(
                f"The result of step {self.name!r} has {len(text.encode()):,} bytes of JSON; the limit "
                f"AGENTEXEC['MAX_RESULT_BYTES'] is {conf.MAX_RESULT_BYTES:,}."
            )
        return json.loads(text)

    def loaded(self, stored: Any, stored_type: str) -> Any:
        """Return a stored result in the declared type. Raises `PipelineChanged` if it does not fit any more."""
        try:
            value = self.adapter.validate_json(json.dumps(stored), by_alias=True, by_name=True)
            reason = "" if covers(json.loads(self.adapter.dump_json(value, by_alias=False)), stored) else "some is lost"
        except ValueError as error:
            reason = str(error)
        if reason:
            raise PipelineChanged(
                f"Step {self.name!r} has finished with a {stored_type}, but is declared to return {self.result_type} "
                f"by now, which does not hold it ({reason}). Repeat it with activity.retry(agent_id, "
                f"from_step={self.name!r}), or change the type back."
            )
        return value


def read_step(owner: str, method: Callable[..., Any], options: StepOptions, position: int) -> Step:
    """Return the step that a marked method is; raise `TaskDefinitionError` if it cannot be one."""
    place = f"Step {method.__name__!r} of pipeline {owner}"
    if inspect.isgeneratorfunction(method) or inspect.isasyncgenfunction(method):
        raise TaskDefinitionError(f"{place} must return its result, and yield nothing.")
    try:
        hints = get_type_hints(method, include_extras=True)
    except Exception as error:  # an annotation is an expression, and may raise anything
        raise TaskDefinitionError(
            f"{place}: an annotation cannot be resolved: {error}. Import the type at the top of the module."
        ) from error
    _, *parameters = inspect.signature(method).parameters.values()
    wrong = [p.name for p in parameters if p.kind not in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    unknown = [p.name for p in parameters if p.name not in hints]
    if wrong or unknown or "return" not in hints:
        missing = " and ".join([*map(repr, unknown), *(["its result"] if "return" not in hints else [])])
        problem = f"{missing} must be annotated" if missing else f"{', '.join(map(repr, wrong))} must be positional"
        raise TaskDefinitionError(
            f"{place}: {problem}: one step's result is the next one's parameters, by their types."
        )
    try:
        adapter = TypeAdapter(hints["return"])
    except (PydanticUserError, PydanticUndefinedAnnotation) as error:
        raise TaskDefinitionError(f"{place} returns {type_name(hints['return'])}, which cannot be stored.") from error
    return Step(
        name=method.__name__,
        options=options,
        position=position,
        is_async=inspect.iscoroutinefunction(method),
        parameters=tuple(hints[p.name] for p in parameters),
        result=hints["return"],
        adapter=adapter,
    )
