"""`Task`: a registered function with its options. Calling it calls the function."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache, wraps
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeAlias, TypeVar, Unpack, cast
from uuid import UUID

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.db import IntegrityError
from django.utils import timezone
from pydantic import BaseModel, ValidationError

from ..activity.store import database, insert
from ..backoff import Backoff
from ..blocking import blocking
from ..budgets.options import as_run_budget
from ..bulk_sql import build_row
from ..conf import conf
from ..conversations.session import DjangoSession
from ..current import origin
from ..deprecation import deprecated_name
from ..dispatch.push import push_or_log
from ..exceptions import ContextTooLarge, InvalidContext, ResultError, TaskDefinitionError
from ..ids import uuid7
from ..models import Activity, Conversation, Priority
from ..parsing import as_seconds
from ..serialization.comparison import DECLARED, Cause, Comparison
from ..serialization.roundtrip import NotStorable, Store, described, dump_with, model_form, result_problem
from ..translation import gettext as _
from ..validation import MAX_NAME, contains_nul, one_line
from .context_input import construction_of, problem_lines, read_context
from .keys import Keys
from .options import (
    BulkOptions,
    EnqueueOptions,
    RowOptions,
    TaskOptions,
    check_task_options,
    exception_types,
    validate_priority,
)
from .retry import MAX_DELAY as MAX_DELAY
from .retry import RetryPolicy
from .run import Run
from .signature import read_signature

C = TypeVar("C", bound=BaseModel)
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

# A result exists already: what its type declares to be left out of JSON, or does not declare, is no reason to lose it.
RESULT_COMPARISON = Comparison(accepted=DECLARED, untyped_as_json=True, cleaned_text=True)
CONTEXT_COMPARISON = Comparison()

_REMEDIES: dict[Cause, str] = {
    "secret": "Pass a reference to the secret and read it in the handler; a row is no place for it.",
    "excluded": "Take the exclusion away, or leave the value out.",
    "subclass": "Annotate the task, or the field, with the class that has the field.",
    "serializer": "Let its validator read what its serializer writes.",
    "value": "Annotate the field with the type that it holds, and give it values that JSON can hold.",
}

_ENQUEUE = TypeVar("_ENQUEUE", bound=Callable[..., Any])
_CELERY_METHODS = frozenset({"delay", "delay_on_commit", "apply", "apply_async", "s", "si"})


def _takes_context(method: _ENQUEUE) -> _ENQUEUE:
    """Name the task and the remedy in the error about a call without a context, such as `enqueue(text="a")`."""

    @wraps(method)
    def checked(self: AnyTask, *arguments: Any, **options: Any) -> Any:
        if not (arguments or "context" in options):
            raise TypeError(
                f"{method.__name__}() of task {self.name!r} takes a context, then options: "
                f"{method.__name__}({construction_of(self.context_type)})."
            )
        return method(self, *arguments, **options)

    return cast("_ENQUEUE", markcoroutinefunction(checked) if iscoroutinefunction(method) else checked)


class Task(Generic[C, P, R, T]):
    """A function that workers can run, registered by `@task`.

    `C` is the type of its context, `P` its further parameters (such as the attempt), `R` what a call returns, and `T`
    the type of its result: `R`, or what an async function returns when it is awaited.
    """

    def __init__(
        self,
        name: str,
        handler: Callable[Concatenate[UUID, C, P], R],
        **options: Unpack[TaskOptions],
    ) -> None:
        self.name = name
        self.handler = handler
        self.signature = read_signature(name, handler)
        check_task_options(name, options)
        if not (1 <= len(name) <= MAX_NAME and name.isprintable()):
            raise TaskDefinitionError(f"A task's name has 1 to {MAX_NAME} printable characters, but this is {name!r}.")
        retry_on, timeout = options.get("retry_on"), options.get("timeout")
        self.retry_policy = RetryPolicy(
            options.get("backoff") or Backoff(),
            None if retry_on is None else exception_types(name, "retry_on", retry_on),
            exception_types(name, "give_up_on", options.get("give_up_on", ())),
        )
        self.keys = Keys(name, options, self.context_type)
        self.priority = validate_priority(options.get("priority", Priority.NORMAL))
        self.api = options.get("api", False)
        self.authorize = options.get("authorize")
        self.exposes_errors = options.get("expose_errors", False)
        self.budget = as_run_budget(options.get("budget"))
        self.own_queue = options.get("queue")
        self._max_retries = options.get("max_retries")
        self._timeout = None if timeout is None else as_seconds(timeout)
        self._contexts = Store(*model_form(self.context_type), CONTEXT_COMPARISON)
        result = self.signature.result
        self._results = Store(dump_with(result), self._load_result, RESULT_COMPARISON, plain_form="unreadable")
        self._stored_none = b""  # the stored form of None, once it is known
        self.__doc__ = handler.__doc__
        self.__wrapped__ = handler

    if TYPE_CHECKING:

        def __call__(self, agent_id: UUID, context: C, *args: P.args, **kwargs: P.kwargs) -> R:
            """Call the function itself, in the caller's thread: the way to unit-test it."""

    else:

        def __call__(self, *args, **kwargs):
            """Call the function itself, in the caller's thread: the way to unit-test it."""
            return self.handler(*args, **kwargs)

        def __class_getitem__(cls, parameters):
            # TaskDefinition, the name of earlier releases, had two parameters: P and R.
            if isinstance(parameters, tuple) and len(parameters) == 2:
                parameters = (Any, *parameters, Any)
            return super().__class_getitem__(parameters)

        def __getattr__(self, name):
            text = f"{type(self).__name__!r} object has no attribute {name!r}"
            if name in _CELERY_METHODS and "signature" in vars(self):
                context = construction_of(self.context_type)
                text = f"Task {self.name!r} has no method {name!r}. Enqueue it with .enqueue({context})."
            raise AttributeError(text, name=name, obj=self)

    def __repr__(self) -> str:
        return f"<task {self.name!r}: {self.handler.__module__}.{self.handler.__qualname__}>"

    @property
    def context_type(self) -> type[C]:
        """The model of the task's input."""
        return self.signature.context_type  # type: ignore[return-value]  # read from the annotation of C

    @property
    def queue(self) -> str:
        """The queue of its activities, unless an enqueue names another queue."""
        return self.own_queue or conf.QUEUES[0]

    @property
    def max_retries(self) -> int:
        """Automatic retries of an activity."""
        return conf.MAX_RETRIES if self._max_retries is None else self._max_retries

    @property
    def timeout(self) -> float | None:
        """Seconds per attempt, or None for no limit."""
        return self._timeout or conf.TIMEOUT or None

    @_takes_context
    @blocking
    def enqueue(self, context: C, **options: Unpack[EnqueueOptions]) -> Run[T]:
        """Enqueue this task; see `django_agentexec.enqueue`."""
        (row,) = self._build_rows([context], RowOptions.read(self, options, EnqueueOptions))
        existing = _with_same_key(row)
        if existing is None:
            try:
                insert([row], conf.ACTIVITY_MESSAGE_CREATE, push_or_log)
            except IntegrityError:
                existing = _with_same_key(row)
                if existing is None:
                    raise
        return Run.of(row) if existing is None else Run.of(existing, created=False)

    @_takes_context
    async def aenqueue(self, context: C, **options: Unpack[EnqueueOptions]) -> Run[T]:
        """Async version of `enqueue`."""
        return await sync_to_async(self.enqueue)(context, **options)

    @blocking
    def enqueue_many(self, contexts: Sequence[C], **options: Unpack[BulkOptions]) -> list[Run[T]]:
        """Enqueue this task once per context; see `django_agentexec.enqueue_many`."""
        rows = self.new_rows(contexts, **options)
        if rows:
            insert(rows, conf.ACTIVITY_MESSAGE_CREATE, push_or_log)
        return [Run.of(row) for row in rows]

    async def aenqueue_many(self, contexts: Sequence[C], **options: Unpack[BulkOptions]) -> list[Run[T]]:
        """Async version of `enqueue_many`."""
        return await sync_to_async(self.enqueue_many)(contexts, **options)

    def new_rows(self, contexts: Sequence[C], **options: Unpack[BulkOptions]) -> list[Activity]:
        """Return the rows of new activities, validated and not yet written. Raises as `enqueue` does."""
        return self._build_rows(contexts, RowOptions.read(self, options, BulkOptions))

    def _build_rows(self, contexts: Sequence[C], options: RowOptions) -> list[Activity]:
        source, now = origin(), timezone.now()
        shared = {
            **_default_values(),
            "agent_type": self.name,
            "metadata": options.metadata,
            "priority": options.priority,
            "run_after": options.run_after,
            "queue": options.queue,
            "idempotency_key": options.idempotency_key,
            "max_retries": self.max_retries,
            "parent_id": source.parent_id,
            "enqueued_by": source.user_id,
            "created_at": now,
            "updated_at": now,
            "usage": {},
            "traceparent": source.traceparent,
        }
        rows = []
        for context in contexts:
            rows.append(build_row(Activity, {**shared, "agent_id": uuid7(), **self.prepare(context, options.metadata)}))
        if options.conversation is not None and rows:
            conversation = _stored_conversation(options, source.user_id)
            for row in rows:
                row.conversation_id, row.lock_key = conversation.pk, conversation.lock_key
        return rows

    def prepare(self, context: BaseModel, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a row stores of a context: its JSON, lock key and fairness. Raises `InvalidContext`."""
        content = self.store_context(context)
        lock_key, fairness = self.keys.evaluate(context, metadata)
        return {"context": content, "lock_key": lock_key, "fairness": fairness}

    def parse_context(self, values: Mapping[str, Any]) -> C:
        """Return the context of these values. Raises `InvalidContext`, also for unknown fields."""
        try:
            return cast("C", read_context(self, json.dumps(values)))
        except Exception as error:  # a model's own validators may raise anything
            text = _("The context does not fit task %(name)r: %(error)s")
            raise InvalidContext(text % {"name": self.name, "error": "; ".join(_problems(error))}) from error

    def lock_key(self, context: BaseModel, metadata: Mapping[str, Any] | None = None) -> str:
        """Return the lock key of this context (and metadata), or "" if the task has none. Raises `InvalidContext`."""
        return self.keys.evaluate_lock_key(context, metadata or {})

    def store_context(self, context: BaseModel) -> dict[str, Any]:
        """Return a context as JSON values, from which a worker loads the same context.

        Raises `InvalidContext`, with the path of the first difference, if a worker would load another context or none,
        and `ContextTooLarge`.
        """
        if not isinstance(context, self.context_type):
            raise InvalidContext(
                f"Task {self.name!r} takes a {self.context_type.__name__}, not "
                f"{type(context).__name__} {str(context)[:80]!r}. Pass {construction_of(self.context_type)}."
            )
        text = self._context_form(context)
        size = len(text.encode())
        if size > conf.MAX_CONTEXT_BYTES:
            raise ContextTooLarge(
                _(
                    "The context of task %(name)r has %(size)s bytes of JSON; the limit "
                    "AGENTEXEC['MAX_CONTEXT_BYTES'] is %(max_context_bytes)s. Store it and pass a reference."
                )
                % {"name": self.name, "size": f"{size:,}", "max_context_bytes": f"{conf.MAX_CONTEXT_BYTES:,}"}
            )
        if contains_nul(text):
            raise InvalidContext(
                _("The context of task %(name)r holds a NUL character, which is not storable.") % {"name": self.name}
            )
        try:
            content: dict[str, Any] = json.loads(text)
        except (ValueError, RecursionError) as error:  # such as a number of 5,000 digits
            raise InvalidContext(
                _("The context of task %(name)r cannot be stored as JSON: %(error)s")
                % {"name": self.name, "error": error}
            ) from error
        return content

    def _context_form(self, context: BaseModel) -> str:
        try:
            return self._contexts.form_of(context)
        except NotStorable as error:
            if error.difference is None:
                reason = "does not survive as JSON, so no worker could read it"
                raise InvalidContext(f"The context of task {self.name!r} {reason}: {error}") from error
            raise InvalidContext(
                f"The context of task {self.name!r} would reach the handler with another value at {error}. "
                f"{_REMEDIES[error.difference.cause]}"
            ) from error

    def load_context(self, text: str, *, source: str = "") -> C:
        """Return a stored context, or a context made of the result of another task (`source`), from its JSON.

        Raises `InvalidContext`, with the path and type of each problem and without the values, which may be secrets.
        """
        try:
            context: C = self._contexts.load(text)
        except Exception as error:  # a model's own validators may raise anything
            problems = _problems(error)
            message = _("The stored context does not fit task %(name)r: %(error)s. Retry it with a new context.")
            if source:
                message = f"{source} does not fit task %(name)r: %(error)s."
            problem = InvalidContext(message % {"name": self.name, "error": "; ".join(problems).rstrip(".")}, problems)
            if isinstance(error, ValidationError):
                raise problem from None  # its text quotes the values
            raise problem from error
        return context

    def store_result(self, value: Any) -> bytes:
        """Return a handler's result as JSON from which `load_result` creates it again.

        Raises `ResultError` if the result does not match the declared type, or would be loaded with other values. A
        difference that the type declares (a secret, an excluded field) is no error, nor are objects that are loaded
        as JSON because no type is declared.
        """
        if value is None and self._stored_none:
            return self._stored_none
        try:
            checked = self.signature.result.validate_python(value)
            text = self._results.form_of(checked)
            json.loads(text)
        except Exception as error:  # a model's own validators may raise anything
            reason = "cannot be stored" if isinstance(error, NotStorable) else "does not fit its return annotation"
            raise ResultError(
                f"Task {self.name!r} returned {type(value).__name__}, which {reason}: {result_problem(error)}"
            ) from error
        if value is None:
            self._stored_none = text.encode()
        return text.encode()

    def load_result(self, value: Any) -> T:
        """Return a stored result in the declared type. Raises `ResultError` if it does not fit any more."""
        try:
            result: T = self._load_result(json.dumps(value))
        except Exception as error:  # as above
            raise ResultError(
                f"The stored result of task {self.name!r} does not fit its type: {described(error)}"
            ) from error
        return result

    def _load_result(self, text: str) -> Any:
        return self.signature.result.validate_json(text, by_alias=True, by_name=True)

    def retry_delay(self, error: BaseException, retry: int) -> float | None:
        """Return the seconds to wait before retry number `retry` (from 1), or None to give up."""
        return self.retry_policy.delay(error, retry)


AnyTask: TypeAlias = Task[Any, ..., Any, Any]
"""A task whose types do not matter."""

if TYPE_CHECKING:
    TaskDefinition: TypeAlias = Task[Any, P, R, Any]
else:

    def __getattr__(name: str) -> Any:
        return deprecated_name(__name__, name, {"TaskDefinition": Task})


def _problems(error: Exception) -> list[str]:
    """Return one line per problem of a context."""
    return problem_lines(error) if isinstance(error, ValidationError) else [one_line(error)]


def _with_same_key(row: Activity) -> Activity | None:
    """Return the existing activity with the idempotency key of a new row."""
    if row.idempotency_key is None:
        return None
    rows = Activity.objects.using(database()).filter(agent_type=row.agent_type, idempotency_key=row.idempotency_key)
    return rows.only("agent_id", "agent_type", "status").first()


def _stored_conversation(options: RowOptions, user_id: str | None) -> Conversation:
    """Return the conversation of new activities; a new conversation belongs to their user, and has their metadata."""
    given = options.conversation
    if not isinstance(given, DjangoSession):
        return cast("Conversation", given)
    conversations = Conversation.objects.db_manager(database())
    metadata = options.metadata if given.metadata is None else given.metadata
    return conversations.get_or_create_session(given.session_id, given.owner or user_id, metadata)


@cache
def _default_values() -> dict[str, Any]:
    """Return the attributes of a new row before any is set."""
    return vars(Activity())
