"""`@step`, which marks a method as a step, and `Step`, its description with resolved types."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError

from ..backoff import Backoff, Delay
from ..exceptions import PipelineChanged, TaskDefinitionError
from ..parsing import as_seconds
from ..serialization.flow import tuple_parts
from ..serialization.results import ResultForm, TypeChanged, type_name
from ..validation import MAX_COUNT, MAX_SECONDS

F = TypeVar("F", bound=Callable[..., Any])

MARK = "_agentexec_step"


@dataclass(frozen=True, slots=True)
class StepOptions:
    """The arguments of `@step`."""

    order: float
    description: str
    max_retries: int
    backoff: Delay
    timeout: float | None


def step(
    order: float,
    description: str = "",
    *,
    max_retries: int = 0,
    backoff: Delay | None = None,
    timeout: float | timedelta | None = None,
    retries: int | None = None,
) -> Callable[[F], F]:
    """Mark a method, sync or async, as a step of its pipeline.

    - `order`: steps run from the lowest to the highest number; each number may occur once.
    - `description`: the name of the step in the log and the diagram; by default the method's name.
    - `max_retries`: retries after a failed try, within one attempt of the activity. When they are used up, the
      attempt fails and the retries of the task follow.
    - `backoff`: seconds before retry n, as for tasks.
    - `timeout`: time limit of one try, in seconds or as a timedelta.
    - `retries`: deprecated alias of `max_retries`.

    Raises `TaskDefinitionError` for invalid values.
    """

    def invalid(name: str, value: object, expected: str) -> TaskDefinitionError:
        return TaskDefinitionError(f"@step({order!r}, {description!r}): {name}={value!r} must be {expected}.")

    if retries is not None:
        warnings.warn("@step(retries=...) is deprecated; use max_retries.", DeprecationWarning, stacklevel=2)
        max_retries = retries
    if isinstance(order, bool) or not isinstance(order, (int, float)) or not math.isfinite(order):
        raise TaskDefinitionError(f"@step needs an order: @step(0, 'research'), not @step({order!r}).")
    if isinstance(max_retries, bool) or not isinstance(max_retries, int) or not 0 <= max_retries <= MAX_COUNT:
        raise invalid("max_retries", max_retries, f"a whole number from 0 to {MAX_COUNT:,}")
    seconds = None if timeout is None else as_seconds(timeout)
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if seconds is not None and not (is_number and 0 < seconds <= MAX_SECONDS):
        raise invalid("timeout", timeout, f"positive seconds or a timedelta, at most {MAX_SECONDS:,} s")
    if backoff is not None and not callable(backoff):
        raise invalid("backoff", backoff, "a function of the retry number and the exception")
    options = StepOptions(order, description, max_retries, backoff or Backoff(), seconds)

    def mark(method: F) -> F:
        setattr(method, MARK, options)
        return method

    return mark


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a pipeline with its resolved types."""

    name: str
    options: StepOptions
    position: int
    """The index of the step, from 0."""
    is_async: bool
    parameters: tuple[Any, ...]
    """The annotated types of its parameters."""
    result: Any
    """The annotated type of its result."""
    adapter: TypeAdapter[Any]

    @property
    def title(self) -> str:
        """The name of the step for people."""
        return self.options.description or self.name

    @property
    def result_type(self) -> str:
        """The name of the result's type."""
        return self.form.type_name

    def as_arguments(self, value: Any) -> tuple[Any, ...]:
        """Return the arguments of the next step for a result of this step."""
        if tuple_parts(self.result) is not None:
            return tuple(value)
        return () if self.result is type(None) else (value,)

    @property
    def form(self) -> ResultForm:
        """The stored form of its results."""
        return ResultForm(self.result, self.adapter)

    def stored(self, value: Any) -> Any:
        """Return a result as JSON values that `loaded` converts back. Raises `ResultError` if that is impossible."""
        return self.form.stored(value, f"Step {self.name!r}")

    def loaded(self, stored: Any, stored_type: str) -> Any:
        """Return a stored result in the declared type. Raises `PipelineChanged` if the type no longer matches."""
        try:
            return self.form.loaded(stored)
        except TypeChanged as error:
            raise PipelineChanged(
                f"Step {self.name!r} has a stored result of type {stored_type}, but now declares {self.result_type}, "
                f"which cannot represent it ({error}). Run the step again with activity.retry(agent_id, "
                f"from_step={self.name!r}), or restore the type."
            ) from error


def read_step(owner: str, method: Callable[..., Any], options: StepOptions, position: int) -> Step:
    """Return the `Step` for a marked method. Raises `TaskDefinitionError` for an unsuitable method."""
    place = f"Step {method.__name__!r} of pipeline {owner}"
    if inspect.isgeneratorfunction(method) or inspect.isasyncgenfunction(method):
        raise TaskDefinitionError(f"{place} must return its result; generators are not supported.")
    try:
        hints = get_type_hints(method, include_extras=True)
    except Exception as error:  # annotations are evaluated and may raise anything
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
            f"{place}: {problem}. The result of a step is passed to the parameters of the next step by type."
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
