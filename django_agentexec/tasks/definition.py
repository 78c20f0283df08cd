"""`TaskDefinition`: a registered function with its options. Calling it calls the function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypedDict, TypeVar, Unpack

from pydantic import BaseModel

from ..backoff import Backoff, Delay, retry_after
from ..conf import conf
from ..exceptions import InvalidContext, ResultError, StaleAttempt, TaskDefinitionError
from ..models import Priority
from .signature import check_lock_key, read_signature

if TYPE_CHECKING:
    from .enqueue import ActivityHandle

P = ParamSpec("P")
R = TypeVar("R")

MAX_LOCK_KEY = 500  # characters; the column's size
MAX_NAME = 200  # characters; the column's size


class BulkOptions(TypedDict, total=False):
    """Options of an enqueue that many activities can share."""

    priority: int | None
    metadata: Mapping[str, Any] | None
    delay: float | timedelta | None
    run_after: datetime | None
    queue: str | None


class EnqueueOptions(BulkOptions, total=False):
    """Options of a single enqueue."""

    idempotency_key: str | None


class TaskDefinition(Generic[P, R]):
    """A function that workers can run. Made by `@task`; see there for the options."""

    def __init__(
        self,
        name: str,
        handler: Callable[P, R],
        *,
        queue: str | None = None,
        lock_key: str | None = None,
        max_retries: int | None = None,
        backoff: Delay | None = None,
        retry_on: Sequence[type[BaseException]] = (Exception,),
        give_up_on: Sequence[type[BaseException]] = (),
        timeout: float | None = None,
        priority: Priority | int = Priority.NORMAL,
    ) -> None:
        self.name = name
        self.handler = handler
        self.signature = read_signature(name, handler)
        self.lock_key_template = lock_key or ""
        self.backoff = backoff or Backoff()
        self.retry_on = tuple(retry_on)
        self.give_up_on = tuple(give_up_on)
        self._queue = queue
        self._max_retries = max_retries
        self._timeout = timeout
        self._priority = priority
        self.__doc__ = handler.__doc__
        self.__wrapped__ = handler
        self._check()

    def _check(self) -> None:
        from .options import checked_priority, checked_queue

        if not self.name or len(self.name) > MAX_NAME:
            raise TaskDefinitionError(f"A task's name has 1 to {MAX_NAME} characters, but this is {self.name!r}.")
        if self._max_retries is not None and self._max_retries < 0:
            raise TaskDefinitionError(f"Task {self.name!r}: max_retries={self._max_retries!r} must not be negative.")
        if self._timeout is not None and self._timeout <= 0:
            raise TaskDefinitionError(f"Task {self.name!r}: timeout={self._timeout!r} must be positive seconds.")
        for kind in (*self.retry_on, *self.give_up_on):
            if not (isinstance(kind, type) and issubclass(kind, BaseException)):
                raise TaskDefinitionError(f"Task {self.name!r}: retry_on and give_up_on take exceptions, not {kind!r}.")
        try:
            self.priority = checked_priority(self._priority)
            if self._queue is not None:
                checked_queue(self._queue)
        except ValueError as error:
            raise TaskDefinitionError(f"Task {self.name!r}: {error}") from error
        check_lock_key(self.name, self.lock_key_template, self.context_type)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function itself, here and now: that is how to unit-test it."""
        return self.handler(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<task {self.name!r}: {self.handler.__module__}.{self.handler.__qualname__}>"

    @property
    def context_type(self) -> type[BaseModel]:
        """The model of the task's input."""
        return self.signature.context_type

    @property
    def queue(self) -> str:
        """The queue it goes to unless an enqueue says otherwise."""
        return self._queue or conf.QUEUES[0]

    @property
    def max_retries(self) -> int:
        """Automatic retries of an activity."""
        return conf.MAX_RETRIES if self._max_retries is None else self._max_retries

    @property
    def timeout(self) -> float | None:
        """Seconds per attempt, or None for no limit."""
        return self._timeout or conf.TIMEOUT or None

    def enqueue(self, context: BaseModel, **options: Unpack[EnqueueOptions]) -> ActivityHandle:
        """Have a worker run this task; see `django_agentexec.enqueue`."""
        from .enqueue import enqueue

        return enqueue(self, context, **options)

    async def aenqueue(self, context: BaseModel, **options: Unpack[EnqueueOptions]) -> ActivityHandle:
        """Do what `enqueue` does, in async code."""
        from .enqueue import aenqueue

        return await aenqueue(self, context, **options)

    def enqueue_many(self, contexts: Sequence[BaseModel], **options: Unpack[BulkOptions]) -> list[ActivityHandle]:
        """Have workers run this task once per context; see `django_agentexec.enqueue_many`."""
        from .enqueue import enqueue_many

        return enqueue_many(self, contexts, **options)

    async def aenqueue_many(
        self, contexts: Sequence[BaseModel], **options: Unpack[BulkOptions]
    ) -> list[ActivityHandle]:
        """Do what `enqueue_many` does, in async code."""
        from .enqueue import aenqueue_many

        return await aenqueue_many(self, contexts, **options)

    def lock_key(self, context: BaseModel) -> str:
        """Return the lock key of this context, or "" if the task has none. Raises `InvalidContext`."""
        if not self.lock_key_template:
            return ""
        values = {
            name: getattr(context, name)
            for name in (*self.context_type.model_fields, *self.context_type.model_computed_fields)
        }
        try:
            key = self.lock_key_template.format_map(_NoneIsMissing(values))
        except (LookupError, AttributeError, TypeError, ValueError) as error:
            raise InvalidContext(
                f"Task {self.name!r}: the lock key {self.lock_key_template!r} cannot be made of {context!r}: {error}."
            ) from error
        if len(key) > MAX_LOCK_KEY or "\x00" in key:
            raise InvalidContext(
                f"Task {self.name!r}: the lock key {key[:80]!r} has {len(key)} characters; "
                f"at most {MAX_LOCK_KEY} are allowed, and no NUL."
            )
        return key

    def store_result(self, value: Any) -> bytes:
        """Return a handler's result as JSON. Raises `ResultError` if it is not what the task declares."""
        try:
            checked = self.signature.result.validate_python(value)
            return self.signature.result.dump_json(checked)
        except (ValueError, TypeError) as error:  # pydantic's errors derive from ValueError
            raise ResultError(
                f"Task {self.name!r} returned {type(value).__name__}, which does not fit its return annotation: {error}"
            ) from error

    def load_result(self, value: Any) -> R:
        """Return a stored result in the declared type. Raises `ResultError` if it does not fit any more."""
        try:
            result: R = self.signature.result.validate_python(value)
        except ValueError as error:
            raise ResultError(f"The stored result of task {self.name!r} does not fit its type: {error}") from error
        return result

    def retry_delay(self, error: BaseException, retry: int) -> float | None:
        """Return the seconds to wait before retry number `retry` (from 1), or None to give up."""
        if isinstance(error, (*self.give_up_on, ResultError, StaleAttempt)) or not isinstance(error, self.retry_on):
            return None
        return max(0.0, self.backoff(retry, error), retry_after(error) or 0.0)


class _NoneIsMissing(dict[str, Any]):
    """Refuses None: "user:None" would be one line for everybody who has no user."""

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        if value is None:
            raise LookupError(f"{name} is None")
        return value
