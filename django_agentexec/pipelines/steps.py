"""`@step`, which marks a method, and `Step`, what a pipeline knows of it."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError

from ..backoff import Backoff, Delay
from ..conf import conf
from ..exceptions import PipelineChanged, ResultError, TaskDefinitionError
from ..serialization.comparison import Comparison
from ..serialization.roundtrip import NotStorable, Store, described, dump_plainly, dump_with
from ..validation import MAX_COUNT, MAX_SECONDS
from .flow import covers, tuple_parts, type_name

F = TypeVar("F", bound=Callable[..., Any])

MARK = "_agentexec_step"
# The next step gets it: nothing may be changed on the way, except what has no type.
_RESULTS = Comparison(untyped_as_json=True, cleaned_text=True)


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
    if isinstance(retries, bool) or not isinstance(retries, int) or not 0 <= retries <= MAX_COUNT:
        raise refuse("retries", retries, f"a whole number from 0 to {MAX_COUNT:,}")
    is_number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
    if timeout is not None and not (is_number and 0 < timeout <= MAX_SECONDS):
        raise refuse("timeout", timeout, f"positive seconds, at most {MAX_SECONDS:,}")
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
        """Return a result as JSON values, from which `loaded` makes it again.

        Raises `ResultError` if it is not what the step declares, does not load with the same values, or is too large.
        """
        try:
            checked = self.adapter.validate_python(value)
            text = Store(
                dump_with(self.adapter), self._load, _RESULTS, prefers_inputs=True, plain_form="changed"
            ).form_of(checked)
            content = json.loads(text)
        except Exception as error:  # a model's own validators may raise anything
            reason = "cannot be stored" if isinstance(error, NotStorable) else f"does not fit {self.result_type}"
            raise ResultError(
                f"Step {self.name!r} returned {type(value).__name__}, which {reason}: {described(error)}"
            ) from error
        if len(text.encode()) > conf.MAX_RESULT_BYTES:
            raise ResultError(
                f"The result of step {self.name!r} has {len(text.encode()):,} bytes of JSON; the limit "
                f"AGENTEXEC['MAX_RESULT_BYTES'] is {conf.MAX_RESULT_BYTES:,}."
            )
        return content

    def loaded(self, stored: Any, stored_type: str) -> Any:
        """Return a stored result in the declared type. Raises `PipelineChanged` if it does not fit any more."""
        try:
            value = self._load(json.dumps(stored))
            reason = "" if any(covers(form, stored) for form in self._forms(value)) else "some is lost"
        except Exception as error:  # noqa: BLE001  # as above
            reason = str(error)
        if reason:
            raise PipelineChanged(
                f"Step {self.name!r} has finished with a {stored_type}, but is declared to return {self.result_type} "
                f"by now, which does not hold it ({reason}). Repeat it with activity.retry(agent_id, "
                f"from_step={self.name!r}), or change the type back."
            )
        return value

    def _load(self, text: str) -> Any:
        return self.adapter.validate_json(text, by_alias=True, by_name=True)

    def _forms(self, value: Any) -> Iterator[Any]:
        """Return the forms in which a loaded result may have been stored, today's first."""
        dump = dump_with(self.adapter)
        dumps: list[Callable[[], str]] = [
            lambda: dump(value, True),
            lambda: dump_plainly(value),
            lambda: dump(value, False),
        ]
        for write in dumps:
            with suppress(Exception):  # a model's own serializers may raise anything
                yield json.loads(write())


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
