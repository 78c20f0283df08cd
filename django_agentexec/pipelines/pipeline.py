"""`Pipeline`: the base class whose subclasses become tasks. The types between steps are checked at class creation."""

from __future__ import annotations

import asyncio
import re
import warnings
from collections.abc import AsyncIterable, Awaitable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Unpack, cast, overload
from uuid import UUID

from asgiref.sync import async_to_sync
from pydantic import BaseModel
from typing_extensions import TypeVar

from ..blocking import blocking
from ..exceptions import AgentExecError, InvalidContext, TaskDefinitionError
from ..ids import uuid7
from ..tasks.attempt import Attempt
from ..tasks.definition import AnyTask, Task
from ..tasks.options import BulkOptions, EnqueueOptions, TaskOptions
from ..tasks.registry import task
from ..tasks.run import Child, Run
from .execution import run_steps
from .inline import InlineAttempt, run_steps_inline
from .steps import MARK, Step, read_step
from .types import check_declared, check_flow

if TYPE_CHECKING:
    from typing import Self

    from ..tasks.children import Key

C = TypeVar("C", bound=BaseModel, default=Any)
T = TypeVar("T", default=Any)
C1 = TypeVar("C1", bound=BaseModel)
T1 = TypeVar("T1")
T2 = TypeVar("T2")

_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

HIDEABLE_METHODS = {"agather", "amap", "aspawn", "aspawn_many", "map"}
"""Methods that were added after the first release of `Pipeline`; a step of the same name hides them."""


class Pipeline(Generic[C, T]):
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

    `class ResearchPipeline(Pipeline[InputContext, FinalReport])` declares what `enqueue` and `run` take and
    return; the class is refused if its steps have other types.

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

    # For steps

    @overload
    def spawn(
        self, task: Task[C1, ..., Any, T1], context: C1, *, key: str | None = None, **options: Unpack[BulkOptions]
    ) -> Run[T1]: ...
    @overload
    def spawn(
        self, task: str, context: BaseModel, *, key: str | None = None, **options: Unpack[BulkOptions]
    ) -> Run[Any]: ...
    def spawn(
        self,
        task: str | AnyTask,
        context: BaseModel,
        *,
        key: str | None = None,
        **options: Unpack[BulkOptions],
    ) -> Run:
        """Enqueue `task` once as a child of this step. For sync steps; see `Attempt.spawn`."""
        if _is_awaited("spawn"):
            return cast(Run, self.aspawn(task, context, key=key, **options))
        return self.attempt.spawn(task, context, key=key, **options)

    @overload
    async def aspawn(
        self, task: Task[C1, ..., Any, T1], context: C1, *, key: str | None = None, **options: Unpack[BulkOptions]
    ) -> Run[T1]: ...
    @overload
    async def aspawn(
        self, task: str, context: BaseModel, *, key: str | None = None, **options: Unpack[BulkOptions]
    ) -> Run[Any]: ...
    async def aspawn(
        self,
        task: str | AnyTask,
        context: BaseModel,
        *,
        key: str | None = None,
        **options: Unpack[BulkOptions],
    ) -> Run:
        """Async version of `spawn`."""
        return await self.attempt.aspawn(task, context, key=key, **options)

    @overload
    def spawn_many(
        self,
        task: Task[C1, ..., Any, T1],
        contexts: Sequence[C1],
        *,
        keys: Sequence[str] | None = None,
        **options: Unpack[BulkOptions],
    ) -> list[Run[T1]]: ...
    @overload
    def spawn_many(
        self,
        task: str,
        contexts: Sequence[BaseModel],
        *,
        keys: Sequence[str] | None = None,
        **options: Unpack[BulkOptions],
    ) -> list[Run[Any]]: ...
    def spawn_many(
        self,
        task: str | AnyTask,
        contexts: Sequence[BaseModel],
        *,
        keys: Sequence[str] | None = None,
        **options: Unpack[BulkOptions],
    ) -> list[Run]:
        """Enqueue `task` once per context, in one transaction, as children of this step."""
        if _is_awaited("spawn_many"):
            return cast(list[Run], self.aspawn_many(task, contexts, keys=keys, **options))
        return self.attempt.spawn_many(task, contexts, keys=keys, **options)

    @overload
    async def aspawn_many(
        self,
        task: Task[C1, ..., Any, T1],
        contexts: Sequence[C1],
        *,
        keys: Sequence[str] | None = None,
        **options: Unpack[BulkOptions],
    ) -> list[Run[T1]]: ...
    @overload
    async def aspawn_many(
        self,
        task: str,
        contexts: Sequence[BaseModel],
        *,
        keys: Sequence[str] | None = None,
        **options: Unpack[BulkOptions],
    ) -> list[Run[Any]]: ...
    async def aspawn_many(
        self,
        task: str | AnyTask,
        contexts: Sequence[BaseModel],
        *,
        keys: Sequence[str] | None = None,
        **options: Unpack[BulkOptions],
    ) -> list[Run]:
        """Async version of `spawn_many`."""
        return await self.attempt.aspawn_many(task, contexts, keys=keys, **options)

    @overload
    def gather(self, child1: Run[T1], child2: Run[T2], /) -> tuple[T1, T2]: ...
    @overload
    def gather(self, *children: Run[T1]) -> tuple[T1, ...]: ...
    @overload
    def gather(self, *children: Run | UUID, return_exceptions: bool = False) -> tuple[Any, ...]: ...
    def gather(self, *children: Run | UUID, return_exceptions: bool = False) -> tuple[Any, ...]:
        """Return the results of children; without arguments, of all children of this step. See `Attempt.gather`.

        The pipeline occupies no slot while children are active.
        """
        if _is_awaited("gather"):
            return cast(tuple[Any, ...], self.agather(*children, return_exceptions=return_exceptions))
        return self.attempt.gather(*children, return_exceptions=return_exceptions)

    @overload
    async def agather(self, child1: Child[T1], child2: Child[T2], /) -> tuple[T1, T2]: ...
    @overload
    async def agather(self, *children: Child[T1]) -> tuple[T1, ...]: ...
    @overload
    async def agather(self, *children: Child | UUID, return_exceptions: bool = False) -> tuple[Any, ...]: ...
    async def agather(self, *children: Run | UUID | Awaitable[Run], return_exceptions: bool = False) -> tuple[Any, ...]:
        """Async version of `gather`. Accepts calls of `aspawn` that are not awaited yet.

        Example: `await self.agather(self.aspawn(a, x), self.aspawn(b, y))`.
        """
        return await self.attempt.agather(*children, return_exceptions=return_exceptions)

    def map(
        self,
        task: str | AnyTask,
        contexts: Iterable[BaseModel],
        *,
        key: Key = None,
        return_exceptions: bool = False,
        **options: Unpack[BulkOptions],
    ) -> tuple[Any, ...]:
        """Run `task` once per context in workers and return the results in order. See `Attempt.map`.

        In a pipeline with a step of this name, use `self.attempt.map`.
        """
        if _is_awaited("map"):
            call = self.amap(task, contexts, key=key, return_exceptions=return_exceptions, **options)
            return cast(tuple[Any, ...], call)
        return self.attempt.map(task, contexts, key=key, return_exceptions=return_exceptions, **options)

    async def amap(
        self,
        task: str | AnyTask,
        contexts: Iterable[BaseModel] | AsyncIterable[BaseModel],
        *,
        key: Key = None,
        return_exceptions: bool = False,
        **options: Unpack[BulkOptions],
    ) -> tuple[Any, ...]:
        """Async version of `map`. `contexts` may be an asynchronous iterable."""
        return await self.attempt.amap(task, contexts, key=key, return_exceptions=return_exceptions, **options)

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


def _is_awaited(name: str) -> bool:
    """Whether a sync method is called in an event loop, as async steps did before the `a...` methods existed."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    warnings.warn(
        f"In an async step, `await self.{name}(...)` is deprecated; use `await self.a{name}(...)`.",
        DeprecationWarning,
        stacklevel=3,
    )
    return True


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
