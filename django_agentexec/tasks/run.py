"""`Run`: the handle that `enqueue` returns."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeAlias
from uuid import UUID

from asgiref.sync import sync_to_async
from pydantic import BaseModel
from typing_extensions import TypeVar

from ..activity import commands, queries
from ..activity.store import database
from ..activity.waiting import await_for_end, wait_for_end
from ..blocking import blocking
from ..deprecation import deprecated_name
from ..exceptions import ActivityNotFound, TaskCanceled, TaskFailed, UnknownTask
from ..models import Activity, Status
from ..registry import registry
from ..schemas import ActivityDetailSchema
from ..validation import validate_id
from .status_url import status_url

T = TypeVar("T", default=Any)


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Run(Generic[T]):
    """An activity that was enqueued, and the type `T` of its result. The async version of each method is `a...`.

    `Run(agent_id, agent_type)` makes the handle of an activity from its id and the name of its task.
    """

    agent_id: UUID
    agent_type: str
    created: bool = True
    """False if an idempotency key led to an activity that existed before."""
    _status: Status | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, row: Activity, *, created: bool = True) -> Run[Any]:
        """Return the handle of a row."""
        return Run(row.agent_id, row.agent_type, created, Status(row.status))

    @property
    def task(self) -> str:
        """The name of the task."""
        return self.agent_type

    @property
    def status_url(self) -> str:
        """The path of the activity in the REST API, or `AGENTEXEC["STATUS_URL"]` if the API is not mounted."""
        return status_url(self.agent_id)

    @property
    def status(self) -> Status:
        """The status at the enqueue or the latest `refresh`; a handle without either reads it once.

        Raises `ActivityNotFound`.
        """
        if self._status is None:
            self.refresh()
        assert self._status is not None
        return self._status

    @blocking
    def refresh(self) -> None:
        """Read the status again. One query. Raises `ActivityNotFound`."""
        rows = Activity.objects.using(database()).filter(agent_id=self.agent_id)
        status = rows.values_list("status", flat=True).first()
        if status is None:
            raise ActivityNotFound(self.agent_id)
        object.__setattr__(self, "_status", Status(status))  # the dataclass is frozen

    async def arefresh(self) -> None:
        """Async version of `refresh`."""
        await sync_to_async(self.refresh)()

    @blocking
    def result(self, timeout: float | timedelta | None = 300) -> T:
        """Wait for the result, up to `timeout` seconds (or a timedelta; None is no limit). See `get_result`."""
        value: T = outcome(wait_for_end(self.agent_id, timeout))
        return value

    async def aresult(self, timeout: float | timedelta | None = 300) -> T:
        """Async version of `result`."""
        value: T = await sync_to_async(outcome)(await await_for_end(self.agent_id, timeout))
        return value

    @blocking
    def detail(self) -> ActivityDetailSchema:
        """Return the activity with its log. Two queries. Raises `ActivityNotFound`."""
        return queries.detail(self.agent_id)

    async def adetail(self) -> ActivityDetailSchema:
        """Async version of `detail`."""
        return await sync_to_async(self.detail)()

    @blocking
    def cancel(self, message: str | None = None) -> None:
        """End the activity as `canceled`; a running handler is stopped. See `activity.cancel`."""
        commands.cancel(self.agent_id, message)

    async def acancel(self, message: str | None = None) -> None:
        """Async version of `cancel`."""
        await sync_to_async(self.cancel)(message)

    @blocking
    def retry(
        self,
        *,
        from_step: str | None = None,
        from_scratch: bool = False,
        fresh: bool = False,
        context: BaseModel | Mapping[str, Any] | None = None,
    ) -> None:
        """Queue a failed or canceled activity again, under the same id. See `activity.retry`."""
        commands.retry(self.agent_id, from_step=from_step, from_scratch=from_scratch, fresh=fresh, context=context)

    async def aretry(
        self,
        *,
        from_step: str | None = None,
        from_scratch: bool = False,
        fresh: bool = False,
        context: BaseModel | Mapping[str, Any] | None = None,
    ) -> None:
        """Async version of `retry`."""
        await sync_to_async(self.retry)(from_step=from_step, from_scratch=from_scratch, fresh=fresh, context=context)


Child: TypeAlias = Run[T] | Awaitable[Run[T]]
"""A child to gather: its handle, or the call of `aspawn` that returns it."""


def outcome(activity: Activity) -> Any:
    """Return the result in its declared type; raise `TaskFailed` or `TaskCanceled` where there is none."""
    match activity.status:
        case Status.COMPLETE:
            try:
                definition = registry.get(activity.agent_type)
            except UnknownTask:
                return activity.result  # as JSON, since its type is not known here
            return definition.load_result(activity.result)
        case Status.CANCELED:
            raise TaskCanceled(activity.agent_id)
    raise TaskFailed(activity.agent_id, activity.error, activity.attempt, activity.traceback, activity.is_final)


def awaited_id(task: object) -> UUID:
    """Return the id of the activity to wait for, from a handle, an id or its text. Raises `TypeError` otherwise."""
    if isinstance(task, Run):
        return task.agent_id
    if not isinstance(task, (UUID, str)):
        hint = "; unpack it: gather(*runs)" if isinstance(task, (Sequence, set, frozenset, dict)) else ""
        if isinstance(task, Coroutine):
            task.close()  # without a warning that it was never awaited
            hint = "; await the call that returned this coroutine, or use its sync version"
        raise TypeError(f"To wait for {task!r:.200}, give what `enqueue` or `spawn` returned, or an agent_id{hint}.")
    return validate_id(task)


if TYPE_CHECKING:
    ActivityHandle = Run
else:

    def __getattr__(name: str) -> Any:
        return deprecated_name(__name__, name, {"ActivityHandle": Run})
