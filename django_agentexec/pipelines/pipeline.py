"""`Pipeline`: the base class whose subclasses become tasks. The types between steps are checked at class creation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Unpack
from uuid import UUID

from asgiref.sync import async_to_sync
from pydantic import BaseModel
from typing_extensions import TypeVar

from ..blocking import blocking
from ..exceptions import AgentExecError, InvalidContext, TaskDefinitionError
from ..ids import uuid7
from ..tasks.attempt import Attempt
from ..tasks.definition import AnyTask
from ..tasks.options import EnqueueOptions, TaskOptions
from ..tasks.registry import task
from ..tasks.run import Run
from .children import StepChildren
from .execution import run_steps
from .inline import InlineAttempt, run_steps_inline
from .steps import MARK, Step, read_step
from .types import check_declared, check_flow

if TYPE_CHECKING:
    from typing import Self

C = TypeVar("C", bound=BaseModel, default=Any)
T = TypeVar("T", default=Any)

_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

HIDEABLE_METHODS = {"agather", "amap", "aspawn", "aspawn_many", "map"}
"""Methods that were added after the first release of `Pipeline`; a step of the same name hides them."""


class Pipeline(StepChildren, Generic[C, T]):
    """Base class of pipelines. A subclass marks its methods with `@step` and is registered as a task.

        class ResearchPipeline(Pipeline, max_retries=2):      # task "research_pipeline"
            @step(0, "parallel research")
            async def gather_data(self, context: InputContext) -> tuple[BrandResult, MarketResult]: ...

            @step(1, "analysis", max_retries=3, timeout=120)
            async def analyze(self, brand: BrandResult, market: MarketResult) -> FinalReport: ...

    Class keywords: `name`, the options of `@task`, and `abstract=True` for a base class that is not a task.
    The first step takes the context. The result of a step is the parameter of the next step; a tuple of fixed
    length is unpacked into its parameters. The last step returns a Pydantic model. Raises `TaskDefinitionError`,
    naming the steps and types, if they do not fit.

    `class ResearchPipeline(Pipeline[InputContext, FinalReport])` declares the types of `enqueue` and `run` for type
    checkers. Raises `TaskDefinitionError` if the steps have other types.

    Each step runs on a separate instance: pass values between steps as results, not as attributes.
    """

    task: ClassVar[AnyTask]
    """The task that workers run."""
    steps: ClassVar[tuple[Step, ...]] = ()
    """The steps in the order in which they run."""

    def __init__(self, agent_id: UUID | None = None, context: BaseModel | None = None, attempt: Attempt | None = None):
        self.agent_id = agent_id or uuid7()
        """The id of the activity."""
        self.context = context
        """The input of the pipeline."""
        self._attempt = attempt

    def __init_subclass__(cls, *, name: str | None = None, abstract: bool = False, **options: Unpack[TaskOptions]):
        super().__init_subclass__()
        cls.steps = tuple(_read_steps(cls))
        if abstract:
            return
        check_flow(cls.__qualname__, cls.steps)
        check_declared(cls, Pipeline)
        cls.task = task(name or _WORD_START.sub("_", cls.__name__).lower(), **options)(_make_handler(cls))

    @property
    def attempt(self) -> Attempt:
        """The current attempt. Progress that it reports counts within the step."""
        if self._attempt is None:
            raise AgentExecError(
                f"This {type(self).__name__} does not run. Call {type(self).__name__}.run(context) to run all steps, "
                "or pass an attempt: django_agentexec.testing.make_attempt()."
            )
        return self._attempt

    # For callers

    @classmethod
    def enqueue(cls, context: C, **options: Unpack[EnqueueOptions]) -> Run[T]:
        """Enqueue the pipeline; see `django_agentexec.enqueue`."""
        return cls.task.enqueue(context, **options)

    @classmethod
    async def aenqueue(cls, context: C, **options: Unpack[EnqueueOptions]) -> Run[T]:
        """Async version of `enqueue`."""
        return await cls.task.aenqueue(context, **options)

    @classmethod
    @blocking
    def run(cls, context: C) -> T:
        """Run all steps in this process and return the result of the last step; for tests.

        Uses neither the queue nor the database: children run inline, no checkpoint is stored, and nothing is
        retried. Raises the exception of a failing step.
        """
        result: T = async_to_sync(cls.arun)(context)
        return result

    @classmethod
    async def arun(cls, context: C) -> T:
        """Async version of `run`."""
        expected = cls.task.context_type
        if not isinstance(context, expected):
            raise InvalidContext(
                f"Pipeline {cls.__name__} takes a {expected.__name__}, not a {type(context).__name__}."
            )
        result: T = await run_steps_inline(cls, context, InlineAttempt())
        return result

    @classmethod
    def for_step(cls, context: BaseModel, attempt: Attempt) -> Self:
        """Return a new instance, on which one step runs."""
        return cls(attempt.agent_id, context, attempt)


def _read_steps(cls: type[Pipeline]) -> Iterator[Step]:
    methods = {name: value for base in reversed(cls.__mro__) for name, value in vars(base).items()}
    marked = [method for method in methods.values() if hasattr(method, MARK)]
    marked.sort(key=lambda method: getattr(method, MARK).order)
    for first, second in pairwise(marked):
        if getattr(first, MARK).order == getattr(second, MARK).order:
            raise TaskDefinitionError(
                f"Pipeline {cls.__qualname__}: steps {first.__name__!r} and {second.__name__!r} have the same order "
                f"{getattr(first, MARK).order}. Give each step a different number."
            )
    for position, method in enumerate(marked):
        if hasattr(Pipeline, method.__name__) and method.__name__ not in HIDEABLE_METHODS:
            raise TaskDefinitionError(
                f"Pipeline {cls.__qualname__}: a step cannot be called {method.__name__!r}, because `Pipeline` has an "
                "attribute of this name."
            )
        yield read_step(cls.__qualname__, method, getattr(method, MARK), position)


def _make_handler(cls: type[Pipeline]) -> Any:
    """Return the function that is registered as the pipeline's task."""

    async def handler(agent_id: UUID, context: BaseModel, attempt: Attempt) -> BaseModel:
        result: BaseModel
        if isinstance(attempt, InlineAttempt):
            result = await run_steps_inline(cls, context, attempt)
        else:
            result = await run_steps(cls, context, attempt)
        return result

    handler.__module__, handler.__qualname__, handler.__doc__ = cls.__module__, cls.__qualname__, cls.__doc__
    handler.__annotations__ = {
        "agent_id": UUID,
        "context": cls.steps[0].parameters[0],
        "attempt": Attempt,
        "return": cls.steps[-1].result,
    }
    handler.pipeline = cls  # type: ignore[attr-defined]  # the diagram finds the steps by it
    return handler
