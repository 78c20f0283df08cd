"""The options of tasks and enqueues: their types, and the checks that return each value in its final form."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict

from django.utils import timezone

from ..backoff import Delay
from ..budgets.options import BudgetOption, as_run_budget
from ..conf import conf
from ..conversations.session import DjangoSession
from ..exceptions import InvalidOption, TaskDefinitionError
from ..models import Conversation, Priority
from ..parsing import as_seconds
from ..queues import get_queue
from ..translation import gettext as _
from ..validation import (
    MAX_COUNT,
    MAX_SECONDS,
    QUEUE_NAME,
    is_storable,
    stored_time,
    validate_metadata,
)
from .authorization import Authorize, check_authorize

if TYPE_CHECKING:
    from .definition import AnyTask

logger = logging.getLogger(__name__)

MAX_IDEMPOTENCY_KEY = 255  # characters; the column's size
MAX_WARNINGS = 1_000  # remembered queue names, since names may come from outside
_warned: set[str] = set()

PriorityName = Literal["high", "normal", "low"]
PriorityOption = Priority | int | PriorityName
ExceptionTypes: TypeAlias = type[BaseException] | Sequence[type[BaseException]]


class TaskOptions(TypedDict, total=False):
    """Options of `@task`, which pipelines take as class keywords; `@task` describes them."""

    queue: str | None
    lock_key: str | None
    fair_key: str | None
    concurrency: int | None
    concurrency_key: str | None
    max_concurrency: int | None
    rate_limit: str | None
    max_retries: int | None
    backoff: Delay | None
    retry_on: ExceptionTypes | None
    give_up_on: ExceptionTypes
    timeout: float | timedelta | None
    priority: PriorityOption
    api: bool
    authorize: Authorize | None
    expose_errors: bool
    budget: BudgetOption | None


class BulkOptions(TypedDict, total=False):
    """Options of an enqueue that many activities can share."""

    priority: PriorityOption | None
    metadata: Mapping[str, Any] | None
    delay: float | timedelta | None
    run_after: datetime | None
    queue: str | None
    conversation: str | Conversation | DjangoSession | None


class EnqueueOptions(BulkOptions, total=False):
    """Options of a single enqueue."""

    idempotency_key: str | None


@dataclass(frozen=True, slots=True)
class RowOptions:
    """The validated options of an enqueue, as the rows of its activities hold them."""

    priority: Priority
    metadata: dict[str, Any]
    run_after: datetime | None
    queue: str
    idempotency_key: str | None
    conversation: Conversation | DjangoSession | None = None

    @classmethod
    def read(cls, task: AnyTask, options: Mapping[str, Any], known: type) -> RowOptions:
        """Return validated options, with the task's defaults.

        Raises `InvalidOption`, and `TypeError` for an option that `known` (a TypedDict) does not have.
        """
        check_names(f"Enqueueing {task.name!r}", options, known)
        priority, queue = options.get("priority"), options.get("queue")
        checked = cls(
            priority=task.priority if priority is None else validate_priority(priority),
            metadata=validate_metadata(options.get("metadata")),
            run_after=due_time(options.get("delay"), options.get("run_after")),
            queue=task.own_queue or conf.QUEUES[0] if queue is None else validate_queue(queue),
            idempotency_key=validate_idempotency_key(options.get("idempotency_key")),
            conversation=validate_conversation(task, options.get("conversation")),
        )
        checked._check_backend(task)
        if checked.queue not in conf.QUEUES:
            warn_of_undeclared_queue(task.name, checked.queue)
        return checked

    def _check_backend(self, task: AnyTask) -> None:
        """Raise `InvalidOption` for an option that the configured queue backend does not support."""
        has_lock_key = task.keys.lock_key or self.conversation is not None
        if self.run_after is None and self.priority == Priority.NORMAL and not (has_lock_key or task.keys.are_fair):
            return
        backend = get_queue()
        for is_used, is_supported, feature in (
            (self.run_after, backend.supports_delay, "delays"),
            (self.priority != Priority.NORMAL, backend.supports_priority, "priorities"),
            (has_lock_key, backend.supports_partitions, "lock keys"),
            (task.keys.are_fair, backend.supports_limits, "fair keys and limits"),
        ):
            if is_used and not is_supported:
                raise InvalidOption(
                    f"Task {task.name!r}: the queue backend {type(backend).__name__} does not support {feature}."
                )


def check_names(subject: str, options: Mapping[str, object], known: type) -> None:
    """Raise `TypeError` for an option that `known` (a TypedDict) does not have, with the closest known name."""
    names = known.__annotations__
    for name in options:
        if name not in names:
            close = difflib.get_close_matches(name, names, 1)
            hint = f"Did you mean {close[0]!r}?" if close else f"There are {', '.join(names)}."
            raise TypeError(f"{subject} has no option {name!r}. {hint}")


def check_task_options(name: str, options: TaskOptions) -> None:
    """Raise `TaskDefinitionError` for an option of task `name` that cannot work, `TypeError` for an unknown option."""
    check_names(f"Task {name!r}", options, TaskOptions)
    retries, timeout, backoff = options.get("max_retries"), options.get("timeout"), options.get("backoff")
    if retries is not None and not (_is_number(retries, int) and 0 <= retries <= MAX_COUNT):
        raise TaskDefinitionError(
            f"Task {name!r}: max_retries={retries!r:.50} must be a whole number from 0 to {MAX_COUNT:,}."
        )
    seconds = None if timeout is None else as_seconds(timeout)
    if seconds is not None and not (_is_number(seconds) and 0 < seconds <= MAX_SECONDS):
        raise TaskDefinitionError(
            f"Task {name!r}: timeout={seconds!r} must be positive seconds, at most {MAX_SECONDS:,}."
        )
    if backoff is not None and not callable(backoff):
        raise TaskDefinitionError(
            f"Task {name!r}: backoff={backoff!r} must be a function of the retry's number and the exception, such as "
            "Backoff(base=5)."
        )
    queue = options.get("queue")
    try:
        validate_priority(options.get("priority", Priority.NORMAL))
        if queue is not None:
            validate_queue(queue)
        as_run_budget(options.get("budget"))
    except InvalidOption as error:
        raise TaskDefinitionError(f"Task {name!r}: {error}") from error
    check_authorize(name, options.get("authorize"))


def exception_types(name: str, option: str, types: object) -> tuple[type[BaseException], ...]:
    """Return the exceptions of an option of task `name`; raise `TaskDefinitionError` for anything else."""
    found = tuple(types) if isinstance(types, (tuple, list, set, frozenset)) else (types,)
    for each in found:
        if not (isinstance(each, type) and issubclass(each, BaseException)):
            raise TaskDefinitionError(f"Task {name!r}: {option} takes exceptions, not {each!r}.")
    return found


def _is_number(value: object, *types: type) -> bool:
    return isinstance(value, types or (int, float)) and not isinstance(value, bool)


def validate_priority(value: PriorityOption) -> Priority:
    """Return a `Priority` from itself, its number or its name in lower case; raise `InvalidOption` otherwise."""
    if isinstance(value, str) and value.islower() and value.upper() in Priority.names:
        return Priority[value.upper()]
    if isinstance(value, (bool, str)) or value not in Priority.values:
        names = ", ".join(f"Priority.{p.name}" for p in Priority)
        raise InvalidOption(
            _("Priority %(value)r is unknown; there are %(names)s, and their names in lower case.")
            % {"value": value, "names": names}
        )
    return Priority(value)


def validate_queue(name: str) -> str:
    """Return a queue's name; raise `InvalidOption` if it is not 1 to 100 letters, digits, dots or dashes."""
    if not isinstance(name, str) or not QUEUE_NAME.fullmatch(name):
        raise InvalidOption(
            _("%(name)r is not a queue name: use 1 to 100 letters, digits, '_', '.' and '-'.") % {"name": name}
        )
    return name


def validate_idempotency_key(key: str | None) -> str | None:
    """Return the key; raise `InvalidOption` if it is empty, too long, or text that cannot be stored."""
    if key is None:
        return None
    if not (isinstance(key, str) and 1 <= len(key) <= MAX_IDEMPOTENCY_KEY and is_storable(key)):
        raise InvalidOption(
            _("Idempotency key %(key)r must be text of 1 to %(max_idempotency_key)s characters.")
            % {"key": key, "max_idempotency_key": MAX_IDEMPOTENCY_KEY}
        )
    return key


def due_time(delay: float | timedelta | None, run_after: datetime | None) -> datetime | None:
    """Return when an activity is due, or None for at once. Raises `InvalidOption`."""
    if delay is not None and run_after is not None:
        raise InvalidOption(_("Give delay or run_after, not both."))
    if run_after is not None:
        return stored_time("run_after", run_after)
    if delay is None:
        return None
    seconds = as_seconds(delay)
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < 10**9:
        raise InvalidOption(_("delay=%(delay)r must be seconds (or a timedelta), not negative.") % {"delay": delay})
    return timezone.now() + timedelta(seconds=seconds) if seconds else None


def validate_conversation(task: AnyTask, given: object) -> Conversation | DjangoSession | None:
    """Return the option `conversation`, a session for a session id.

    Raises `InvalidOption`, also if the task has a lock key: an activity has one, and turns use the conversation's.
    """
    if given is None:
        return None
    if isinstance(given, str):
        given = DjangoSession(given)
    if not isinstance(given, (Conversation, DjangoSession)) or getattr(given, "pk", given) is None:
        text = _("conversation=%(given)s must be a session id, a Conversation or a DjangoSession.")
        raise InvalidOption(text % {"given": f"{given!r:.200}"})
    if task.keys.lock_key:
        text = _(
            "Task %(task)r has the lock key %(key)r, but an activity has a single lock key: with conversation=..., it "
            "is the conversation's, so that its turns run one after another. Remove lock_key from the task, or pass "
            "the session id in the context and use DjangoSession(session_id) instead."
        )
        raise InvalidOption(text % {"task": task.name, "key": task.keys.lock_key})
    return given


def undeclared_queue_problem(name: str, known: Collection[str] = ()) -> str:
    """Return why activities in queue `name` may never run, with the closest known name; "" if it is declared.

    `AGENTEXEC["QUEUES"]` declares queues. `known` are further names of which `name` may be a misspelling.
    """
    declared = conf.QUEUES
    if name in declared:
        return ""
    close = difflib.get_close_matches(name, [*declared, *known], 1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return (
        f"queue {name!r} is not in AGENTEXEC['QUEUES'] ({', '.join(declared)}), so only a pool that names it "
        f"(runagentworkers --queues {name}) runs its activities.{hint}"
    )


def warn_of_undeclared_queue(task: str, name: str) -> None:
    """Log once per process and name that an enqueue uses an undeclared queue."""
    if name in _warned:
        return
    if len(_warned) < MAX_WARNINGS:
        _warned.add(name)
    logger.warning("Task %r: %s", task, undeclared_queue_problem(name), extra={"task": task, "queue": name})
