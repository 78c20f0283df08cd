"""`@task`: registers a function as a task."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, Unpack, overload
from uuid import UUID

from pydantic import BaseModel

from ..exceptions import TaskDefinitionError
from ..registry import registry
from .definition import AnyTask, Task
from .options import TaskOptions

C = TypeVar("C", bound=BaseModel)
P = ParamSpec("P")
T = TypeVar("T")


class TaskDecorator(Protocol):
    """What `task(...)` returns: it makes a `Task` of a function."""

    @overload
    def __call__(
        self, handler: Callable[Concatenate[UUID, C, P], Coroutine[Any, Any, T]], /
    ) -> Task[C, P, Coroutine[Any, Any, T], T]: ...
    @overload
    def __call__(self, handler: Callable[Concatenate[UUID, C, P], T], /) -> Task[C, P, T, T]: ...


def task(name: str, **options: Unpack[TaskOptions]) -> TaskDecorator:
    """Register a function, sync or async, as the task `name`.

    The function takes the activity's id (UUID), its context (annotated with a Pydantic model) and, optionally, its
    `Attempt`. Its result is stored; annotate the return type to get the result back in the same type.

    - `queue`: the queue of its activities; by default the first of `AGENTEXEC["QUEUES"]`.
    - `lock_key`: a template over the context such as `"user:{user_id}"`; activities with the same evaluated
      key run one at a time, in the order of their enqueue.
    - `max_retries`: retries after a failed attempt; by default `AGENTEXEC["MAX_RETRIES"]`.
    - `backoff`: seconds to wait before retry n, as a function of n and the exception; by default `Backoff()`.
      If the exception carries a provider's Retry-After, the wait is at least that long.
    - `retry_on`, `give_up_on`: an exception class, or several, to retry or to give up on; giving up takes precedence.
      Without `retry_on`, every error is retried except those that a repetition cannot fix: programming errors, and
      answers that a model or provider would give again (docs/tasks.md has the list).
    - `timeout`: seconds (or a timedelta) for one attempt. An async handler is canceled; a sync one checks
      `attempt.canceled`.
    - `priority`: a `Priority` or its name, such as `"high"`; an enqueue may set another priority.
    - `api`: whether REST clients may enqueue it, if the policy permits.
    - `authorize`: whether a user may run it with this context: a function, sync or async, of user, context, metadata.
      Called before anything is written, wherever a user enqueues or retries it. Anything but a true value, and any
      exception, refuses. Policies decide about tenants, not about the objects whose ids a context contains: check
      those here.
    - `budget`: the limit of the model calls of each activity, with its children and in all attempts: an amount in US
      dollars such as `Decimal("0.50")`, or a `RunBudget`.
    - `expose_errors`: whether every user who sees its activities may read the texts of its exceptions.

    Raises `TaskDefinitionError` for anything that cannot work.
    """
    if not isinstance(name, str):
        raise TaskDefinitionError(f"A task needs a name: @task('research_company'), not @task on {name!r} itself.")

    def register(handler: Callable[..., Any]) -> AnyTask:
        definition: AnyTask = Task(name, handler, **options)
        registry.register(definition)
        return definition

    return register  # type: ignore[return-value]  # the overloads relate the types
