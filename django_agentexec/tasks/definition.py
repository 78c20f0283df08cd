"""`TaskDefinition`: a registered function with its options. Calling it calls the function."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypedDict, TypeVar, Unpack

from pydantic import BaseModel

from ..backoff import Backoff, Delay
from ..conf import conf
from ..exceptions import InvalidContext, ResultError, TaskDefinitionError
from ..models import Priority
from ..serialization.comparison import DECLARED, Comparison
from ..serialization.roundtrip import NotStorable, Store, described, dump_with
from ..validation import MAX_COUNT, MAX_NAME, MAX_SECONDS, is_storable
from .authorization import Authorize, check_authorize
from .lock_keys import check_lock_key, evaluate_lock_key
from .retry import MAX_DELAY as MAX_DELAY
from .retry import RetryPolicy
from .signature import read_signature

if TYPE_CHECKING:
    from .enqueue import ActivityHandle

P = ParamSpec("P")
R = TypeVar("R")

MAX_LOCK_KEY = 500  # characters; the column's size
# The work is done: what a type declares to be left out of JSON, or does not declare at all, is no reason to lose it.
RESULT_COMPARISON = Comparison(accepted=DECLARED, untyped_as_json=True, cleaned_text=True)


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
        retry_on: Sequence[type[BaseException]] | type[BaseException] | None = None,
        give_up_on: Sequence[type[BaseException]] | type[BaseException] = (),
        timeout: float | None = None,
        priority: Priority | int = Priority.NORMAL,
        api: bool = False,
        authorize: Authorize | None = None,
        expose_errors: bool = False,
    ) -> None:
        self.name = name
        self.handler = handler
        self.signature = read_signature(name, handler)
        self.lock_key_template = lock_key or ""
        self.backoff = backoff or Backoff()
        self.retry_on = None if retry_on is None else _exceptions(name, "retry_on", retry_on)
        self.give_up_on = _exceptions(name, "give_up_on", give_up_on)
        self.retry_policy = RetryPolicy(self.backoff, self.retry_on, self.give_up_on)
        self.api = api
        self.authorize = authorize
        self.exposes_errors = expose_errors
        self._queue = queue
        self._max_retries = max_retries
        self._timeout = timeout
        self._priority = priority
        self.__doc__ = handler.__doc__
        self.__wrapped__ = handler
        self._check()

    def _check(self) -> None:
        from .options import validate_priority, validate_queue

        if not (1 <= len(self.name) <= MAX_NAME and self.name.isprintable()):
            raise TaskDefinitionError(
                f"A task's name has 1 to {MAX_NAME} printable characters, but this is {self.name!r}."
            )
        retries, timeout = self._max_retries, self._timeout
        if retries is not None and not (_is_number(retries, int) and 0 <= retries <= MAX_COUNT):
            raise TaskDefinitionError(
                f"Task {self.name!r}: max_retries={retries!r:.50} must be a whole number from 0 to {MAX_COUNT:,}."
            )
        if timeout is not None and not (_is_number(timeout) and 0 < timeout <= MAX_SECONDS):
            raise TaskDefinitionError(
                f"Task {self.name!r}: timeout={timeout!r} must be positive seconds, at most {MAX_SECONDS:,}."
            )
        if not callable(self.backoff):
            raise TaskDefinitionError(
                f"Task {self.name!r}: backoff={self.backoff!r} must be a function of the retry's number and the "
                "exception, such as Backoff(base=5)."
            )
        try:
            self.priority = validate_priority(self._priority)
            if self._queue is not None:
                validate_queue(self._queue)
        except ValueError as error:
            raise TaskDefinitionError(f"Task {self.name!r}: {error}") from error
        check_lock_key(self.name, self.lock_key_template, self.context_type)
        check_authorize(self.name, self.authorize)

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

    def lock_key(self, context: BaseModel, metadata: Mapping[str, Any] | None = None) -> str:
        """Return the lock key of this context (and metadata), or "" if the task has none. Raises `InvalidContext`."""
        if not self.lock_key_template:
            return ""
        try:
            key = evaluate_lock_key(self.lock_key_template, context, metadata or {})
        except Exception as error:  # a field's own __format__ may raise anything
            raise InvalidContext(
                f"Task {self.name!r}: the lock key {self.lock_key_template!r} cannot be made of this "
                f"{type(context).__name__}: {error}."
            ) from error
        if not 1 <= len(key) <= MAX_LOCK_KEY or not is_storable(key):
            raise InvalidContext(
                f"Task {self.name!r}: the lock key {key[:80]!r} has {len(key)} characters; "
                f"1 to {MAX_LOCK_KEY} are allowed, and no NUL."
            )
        return key

    def load_context(self, text: str | bytes) -> BaseModel:
        """Return a context from its JSON. Raises pydantic's `ValidationError`."""
        # As JSON, since a strict model takes ids and dates as text from there only; by name, as it was dumped.
        return self.context_type.model_validate_json(text, by_alias=True, by_name=True)

    def store_result(self, value: Any) -> bytes:
        """Return a handler's result as JSON from which `load_result` makes it again.

        Raises `ResultError` if it is not what the task declares, or cannot be loaded with the same values. A
        difference that its own type declares (a secret, an excluded field) is no error, nor are objects that come back
        as JSON where no type is declared.
        """
        result = self.signature.result
        try:
            checked = result.validate_python(value)
            text = Store(dump_with(result), self._load_result, RESULT_COMPARISON, plain_form="unreadable").form_of(
                checked
            )
            json.loads(text)
        except Exception as error:  # a model's own validators may raise anything
            reason = "cannot be stored" if isinstance(error, NotStorable) else "does not fit its return annotation"
            raise ResultError(
                f"Task {self.name!r} returned {type(value).__name__}, which {reason}: {described(error)}"
            ) from error
        return text.encode()

    def load_result(self, value: Any) -> R:
        """Return a stored result in the declared type. Raises `ResultError` if it does not fit any more."""
        try:
            result: R = self._load_result(json.dumps(value))
        except Exception as error:  # as above
            raise ResultError(f"The stored result of task {self.name!r} does not fit its type: {error}") from error
        return result

    def _load_result(self, text: str) -> Any:
        return self.signature.result.validate_json(text, by_alias=True, by_name=True)

    def retry_delay(self, error: BaseException, retry: int) -> float | None:
        """Return the seconds to wait before retry number `retry` (from 1), or None to give up."""
        return self.retry_policy.delay(error, retry)


def _is_number(value: object, *kinds: type) -> bool:
    return isinstance(value, kinds or (int, float)) and not isinstance(value, bool)


def _exceptions(name: str, option: str, kinds: object) -> tuple[type[BaseException], ...]:
    kinds = tuple(kinds) if isinstance(kinds, (tuple, list, set, frozenset)) else (kinds,)
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise TaskDefinitionError(f"Task {name!r}: {option} takes exceptions, not {kind!r}.")
    return kinds
