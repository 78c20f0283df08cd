"""`Pipeline`: a class whose steps become one task. The flow of types is checked when the class is made."""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, Awaitable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict, Unpack
from uuid import UUID

from pydantic import BaseModel

from ..backoff import Delay
from ..exceptions import AgentExecError, TaskDefinitionError
from ..ids import uuid7
from ..models import Priority
from ..tasks.attempt import Attempt
from ..tasks.authorization import Authorize
from ..tasks.definition import TaskDefinition
from ..tasks.enqueue import ActivityHandle
from ..tasks.options import BulkOptions, EnqueueOptions
from ..tasks.registry import task
from .flow import fits, is_model, tuple_parts, type_name
from .steps import MARK, Step, read_step

if TYPE_CHECKING:
    from typing import Self

    from ..tasks.spawn import Key

_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

MAY_BE_STEPS = {"map"}  # methods that came later than pipelines: a step of this name hides it


class TaskOptions(TypedDict, total=False):
    """The options of `@task` that a pipeline's class may have."""

    queue: str | None
    lock_key: str | None
    max_retries: int | None
    backoff: Delay | None
    retry_on: Sequence[type[BaseException]] | type[BaseException] | None
    give_up_on: Sequence[type[BaseException]] | type[BaseException]
    timeout: float | None
    priority: Priority | int
    api: bool
    authorize: Authorize | None
    expose_errors: bool


class Pipeline:
    """Derive from it, and mark methods with `@step`; the class registers itself as a task.

        class ResearchPipeline(Pipeline, max_retries=2):      # task "research_pipeline"
            @step(0, "parallel research")
            async def gather_data(self, context: InputContext) -> tuple[BrandResult, MarketResult]: ...

            @step(1, "analysis", retries=3, timeout=120)
            async def analyze(self, brand: BrandResult, market: MarketResult) -> FinalReport: ...

    Keywords of the class: `name`, the options of `@task`, and `abstract=True` for a base that is no task itself.
    The first step takes the context; each step's result is the next one's parameter, a tuple of fixed length its
    parameters; the last one returns a model. Raises `TaskDefinitionError`, naming steps and types, where they do
    not fit.

    Each step runs on an instance of its own: what one is to know of another must be its parameter.
    """

    task: ClassVar[TaskDefinition[..., Any]]
    """The task that workers run."""
    steps: ClassVar[tuple[Step, ...]] = ()
    """The steps, in their order."""

    def __init__(self, agent_id: UUID | None = None, context: BaseModel | None = None, attempt: Attempt | None = None):
        self.agent_id = agent_id or uuid7()
        """The activity."""
        self.context = context
        """The pipeline's input."""
        self._attempt = attempt

    def __init_subclass__(cls, *, name: str | None = None, abstract: bool = False, **options: Unpack[TaskOptions]):
        super().__init_subclass__()
        cls.steps = tuple(_read_steps(cls))
        if abstract:
            return
        _check_flow(cls.__qualname__, cls.steps)
        cls.task = task(name or _WORD_START.sub("_", cls.__name__).lower(), **options)(_handler(cls))

    @property
    def attempt(self) -> Attempt:
        """The running attempt: its `progress` counts within the step, and it spawns and gathers for sync steps."""
        if self._attempt is None:
            raise AgentExecError(
                f"This {type(self).__name__} does not run. Call {type(self).__name__}.run(context) to run all steps, "
                "or give it an attempt: django_agentexec.testing.make_attempt()."
            )
        return self._attempt

    # For steps

    async def spawn(
        self,
        task: str | TaskDefinition[..., Any],
        context: BaseModel,
        *,
        key: str | None = None,
        **options: Unpack[BulkOptions],
    ) -> ActivityHandle:
        """Have a worker run `task` as a child of this step, once; see `Attempt.spawn`, which is for sync steps."""
        return await self.attempt.aspawn(task, context, key=key, **options)

    async def spawn_many(
        self,
        task: str | TaskDefinition[..., Any],
        contexts: Sequence[BaseModel],
        *,
        keys: Sequence[str] | None = None,
        **options: Unpack[BulkOptions],
    ) -> list[ActivityHandle]:
        """Do what `spawn` does, once per context and in one transaction."""
        return await self.attempt.aspawn_many(task, contexts, keys=keys, **options)

    async def gather(
        self, *children: ActivityHandle | UUID | Awaitable[ActivityHandle], return_exceptions: bool = False
    ) -> tuple[Any, ...]:
        """Return the results of children (without arguments: of all the step's); meanwhile the pipeline has no slot.

        See `Attempt.gather`.

        Takes calls of `spawn` as they are: `await self.gather(self.spawn(a, x), self.spawn(b, y))`.
        """
        return await self.attempt.agather(*children, return_exceptions=return_exceptions)

    async def map(
        self,
        task: str | TaskDefinition[..., Any],
        contexts: Iterable[BaseModel] | AsyncIterable[BaseModel],
        *,
        key: Key = None,
        return_exceptions: bool = False,
        **options: Unpack[BulkOptions],
    ) -> tuple[Any, ...]:
        """Have workers run `task` once per context, and return the results in order; see `Attempt.map`.

        A pipeline that has a step of this name uses `self.attempt.amap`.
        """
        return await self.attempt.amap(task, contexts, key=key, return_exceptions=return_exceptions, **options)

    # For callers

    @classmethod
    def enqueue(cls, context: BaseModel, **options: Unpack[EnqueueOptions]) -> ActivityHandle:
        """Have a worker run the pipeline; see `django_agentexec.enqueue`."""
        return cls.task.enqueue(context, **options)

    @classmethod
    async def aenqueue(cls, context: BaseModel, **options: Unpack[EnqueueOptions]) -> ActivityHandle:
        """Do what `enqueue` does, in async code."""
        return await cls.task.aenqueue(context, **options)

    @classmethod
    def run(cls, context: BaseModel) -> Any:
        """Run all steps here and now, and return the last one's result; for tests.

        Neither queue nor database is used: children run inline, nothing is kept, and nothing is tried again.
        Raises what a step raises.
        """
        from .inline import run_inline

        return run_inline(cls, context)

    @classmethod
    async def arun(cls, context: BaseModel) -> Any:
        """Do what `run` does, in async code."""
        from .inline import arun_inline

        return await arun_inline(cls, context)

    @classmethod
    def for_step(cls, context: BaseModel, attempt: Attempt) -> Self:
        """Return the instance on which one step runs."""
        return cls(attempt.agent_id, context, attempt)


def _read_steps(cls: type[Pipeline]) -> Iterator[Step]:
    methods = {name: value for base in reversed(cls.__mro__) for name, value in vars(base).items()}
    marked = [method for method in methods.values() if hasattr(method, MARK)]
    marked.sort(key=lambda method: getattr(method, MARK).order)
    for first, second in pairwise(marked):
        if getattr(first, MARK).order == getattr(second, MARK).order:
            raise TaskDefinitionError(
                f"Pipeline {cls.__qualname__}: steps {first.__name__!r} and {second.__name__!r} have the same order "
                f"{getattr(first, MARK).order}; give each its own."
            )
    for position, method in enumerate(marked):
        if hasattr(Pipeline, method.__name__) and method.__name__ not in MAY_BE_STEPS:
            raise TaskDefinitionError(
                f"Pipeline {cls.__qualname__}: a step cannot be called {method.__name__!r}, which every pipeline has."
            )
        yield read_step(cls.__qualname__, method, getattr(method, MARK), position)


def _check_flow(owner: str, steps: Sequence[Step]) -> None:
    if not steps:
        raise TaskDefinitionError(
            f"Pipeline {owner} has no step: mark its methods with @step(0, ...), or say abstract=True."
        )
    first, last = steps[0], steps[-1]
    if len(first.parameters) != 1 or not is_model(first.parameters[0]):
        names = ", ".join(map(type_name, first.parameters)) or "nothing"
        raise TaskDefinitionError(
            f"Pipeline {owner}: its first step {first.name!r} takes {names}, but must take the context: "
            "one Pydantic model."
        )
    for step, following in pairwise(steps):
        _check_pair(owner, step, following)
    if not is_model(last.result):
        raise TaskDefinitionError(
            f"Pipeline {owner}: its last step {last.name!r} returns {last.result_type}, but must return "
            "one Pydantic model."
        )


def _check_pair(owner: str, step: Step, following: Step) -> None:
    parts = tuple_parts(step.result)
    produced = parts if parts is not None else () if step.result is type(None) else (step.result,)
    wanted = following.parameters
    if len(produced) == len(wanted) and all(fits(*pair) for pair in zip(produced, wanted, strict=True)):
        return
    raise TaskDefinitionError(
        f"Pipeline {owner}: step {step.name!r} returns {type_name(step.result)}, but the next one, {following.name!r}, "
        f"takes ({', '.join(map(type_name, wanted))})."
    )


def _handler(cls: type[Pipeline]) -> Any:
    from .execution import run_steps

    async def handler(agent_id: UUID, context: BaseModel, attempt: Attempt) -> BaseModel:
        result: BaseModel = await run_steps(cls, context, attempt)
        return result

    handler.__module__, handler.__qualname__, handler.__doc__ = cls.__module__, cls.__qualname__, cls.__doc__
    handler.__annotations__ = {
        "agent_id": UUID,
        "context": cls.steps[0].parameters[0],
        "attempt": Attempt,
        "return": cls.steps[-1].result,
    }
    handler.pipeline = cls  # type: ignore[attr-defined]  # how the diagram finds the steps
    return handler
