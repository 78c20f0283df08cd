"""The registry of tasks, and `@task`, which fills it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ParamSpec, TypeVar

from django.utils.module_loading import autodiscover_modules

from ..backoff import Delay
from ..exceptions import TaskDefinitionError, UnknownTask
from ..models import Priority
from .authorization import Authorize
from .definition import TaskDefinition

P = ParamSpec("P")
R = TypeVar("R")

MODULE = "agents"


class Registry:
    """All tasks by name. The first question imports the `agents` module of every installed app.

    Not sooner, since those modules usually import the agents SDK, which takes more than a second.
    """

    def __init__(self) -> None:
        self._tasks: dict[str, TaskDefinition[..., Any]] = {}
        self._discovered = False
        self._lock = threading.RLock()

    def register(self, definition: TaskDefinition[..., Any]) -> None:
        """Add a task. Raises `TaskDefinitionError` if another function has its name."""
        known = self._tasks.get(definition.name)
        # A module that is imported once more may replace its own tasks.
        if known is not None and _identity(known) != _identity(definition):
            raise TaskDefinitionError(
                f"Two tasks are called {definition.name!r}: {'.'.join(_identity(known))} "
                f"and {'.'.join(_identity(definition))}. Rename one of them."
            )
        self._tasks[definition.name] = definition

    def unregister(self, name: str) -> None:
        """Forget a task; for tests."""
        self._tasks.pop(name, None)

    def get(self, name: str) -> TaskDefinition[..., Any]:
        """Return the task of this name, or raise `UnknownTask` with the closest names."""
        if name not in self._tasks:
            self.discover()
        try:
            return self._tasks[name]
        except KeyError:
            raise UnknownTask(name, self._tasks) from None

    def __iter__(self) -> Iterator[TaskDefinition[..., Any]]:
        self.discover()
        return iter(list(self._tasks.values()))

    def known(self) -> list[TaskDefinition[..., Any]]:
        """Return the tasks that are registered so far, without importing anything."""
        return list(self._tasks.values())

    def discover(self) -> None:
        """Import the `agents` module of every installed app, once. An error in one of them is raised."""
        with self._lock:
            if self._discovered:
                return
            self._discovered = True
            try:
                autodiscover_modules(MODULE)
            except BaseException:
                self._discovered = False
                raise


registry = Registry()


def task(
    name: str,
    *,
    queue: str | None = None,
    lock_key: str | None = None,
    max_retries: int | None = None,
    backoff: Delay | None = None,
    retry_on: Sequence[type[BaseException]] | type[BaseException] | None = None,
    give_up_on: Sequence[type[BaseException]] | type[BaseException] = (),
    timeout: float | None = None,
    priority: Priority | int = Priority.NORMAL,
    api: bool = False,
    authorize: Authorize | None = None,
    expose_errors: bool = False,
) -> Callable[[Callable[P, R]], TaskDefinition[P, R]]:
    """Register a function, sync or async, as the task `name`.

    The function takes the activity's id (UUID), its context (annotated with a Pydantic model) and, if it
    likes, its `Attempt`. What it returns is stored; annotate it to get it back in the same type.

    - `queue`: where its activities wait; the first of `AGENTEXEC["QUEUES"]` unless said.
    - `lock_key`: a template over the context such as `"user:{user_id}"`; activities with the same evaluated
      key run one at a time, in the order of their enqueue.
    - `max_retries`: retries after a failed attempt (`AGENTEXEC["MAX_RETRIES"]` unless said).
    - `backoff`: seconds to wait before retry n, as a function of n and the exception; `Backoff()` unless said.
      If the exception carries a provider's Retry-After, the wait is at least that.
    - `retry_on`, `give_up_on`: which exceptions are worth a retry; giving up wins. Without `retry_on` every error is
      retried that a repetition may fix: not programming errors, nor answers that a model or provider would give
      again (docs/tasks.md has the list).
    - `timeout`: seconds for one attempt. An async handler is canceled; a sync one sees `attempt.canceled`.
    - `priority`: of its activities, unless their enqueue says otherwise.
    - `api`: whether it may be enqueued from outside, over REST, by those whom the policy lets.
    - `authorize`: whether a user may run it with this context: a function, sync or async, of user, context, metadata.
      Called before anything is written, wherever a user enqueues or retries it. Anything but a true value, and any
      exception, refuses. Policies know tenants, not what the ids in a context belong to: check that here.
    - `expose_errors`: whether everybody who sees its activities may read the texts of its exceptions.

    Raises `TaskDefinitionError` for anything that cannot work.
    """

    if not isinstance(name, str):
        raise TaskDefinitionError(f"A task needs a name: @task('research_company'), not @task on {name!r} itself.")

    def register(handler: Callable[P, R]) -> TaskDefinition[P, R]:
        definition = TaskDefinition(
            name,
            handler,
            queue=queue,
            lock_key=lock_key,
            max_retries=max_retries,
            backoff=backoff,
            retry_on=retry_on,
            give_up_on=give_up_on,
            timeout=timeout,
            priority=priority,
            api=api,
            authorize=authorize,
            expose_errors=expose_errors,
        )
        registry.register(definition)
        return definition

    return register


def _identity(definition: TaskDefinition[..., Any]) -> tuple[str, str]:
    return definition.handler.__module__, definition.handler.__qualname__
