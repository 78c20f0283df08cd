"""The exceptions of this package. All derive from `AgentExecError`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from .models import Approval


class AgentExecError(Exception):
    """The base class of all exceptions of this package."""


class TaskDefinitionError(AgentExecError):
    """The declaration of a task is invalid; raised at registration."""


class UnknownTask(AgentExecError, LookupError):
    """No task of this name is registered."""

    def __init__(self, name: str, known: Iterable[str] = ()) -> None:
        names = sorted(known)
        close = difflib.get_close_matches(str(name), names, 3)
        if close:
            hint = "Did you mean " + " or ".join(repr(match) for match in close) + "?"
        elif names:
            hint = f"Registered are: {', '.join(names)}."
        else:
            hint = "No task is registered: is its app in INSTALLED_APPS, with a module agents.py or tasks.py?"
        super().__init__(f"There is no task {name!r}. {hint}")
        self.name = name


class InvalidContext(AgentExecError, ValueError):
    """The context does not fit the task; nothing was written."""


class ContextTooLarge(InvalidContext):
    """The context is larger than `MAX_CONTEXT_BYTES`; nothing was written."""


class SpawnMismatch(AgentExecError):
    """A handler that runs again spawns other children than before; a retry would do the same."""


class PipelineChanged(AgentExecError):
    """The result of a finished step no longer fits the code of the pipeline; the message names the remedy."""


class InvalidOption(AgentExecError, ValueError):
    """An option of `enqueue` has an impossible value; nothing was written."""


class ActivityNotFound(AgentExecError, LookupError):
    """There is no activity of this id (or none that the filter lets through)."""

    def __init__(self, agent_id: object) -> None:
        super().__init__(f"There is no activity {agent_id}.")
        self.agent_id = agent_id


class InvalidTransition(AgentExecError):
    """The activity's life does not allow this change, for example progress after its end."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message
        """Without the id: the same for every activity that is refused for the same cause."""


class StaleAttempt(InvalidTransition):
    """This attempt no longer owns the activity: its lease was lost, or the activity was canceled.

    Raised by writes of an attempt whose fence is not the row's any more. Stop working: what you do
    from here on is done again, or not wanted, elsewhere.
    """


class ActivityLocked(AgentExecError):
    """Another transaction holds the lock of the activity's row; nothing was changed.

    Raised by `cancel`, `retry`, `update` and the like after `LOCK_TIMEOUT` seconds. Try again when that transaction
    has ended.
    """

    reason = "locked by another transaction"
    """Without the id: the same for every activity that is refused for this cause."""

    def __init__(self, agent_ids: Iterable[UUID], seconds: float = 0.0, agent_type: str = "") -> None:
        self.agent_ids = list(agent_ids)
        self.agent_type = agent_type
        if len(self.agent_ids) == 1:
            what = f"Activity {self.agent_ids[0]}{f' ({agent_type})' if agent_type else ''} is"
        else:
            what = f"Some of {len(self.agent_ids)} activities are"
        waited = f" and stayed so for {seconds:g} s" if seconds else ""
        super().__init__(f"{what} locked by another transaction{waited}. Try again when that transaction has ended.")


class ApprovalNotFound(AgentExecError, LookupError):
    """There is no approval of this id."""

    def __init__(self, id: object) -> None:
        super().__init__(f"There is no approval {id}.")
        self.id = id


class AlreadyDecided(AgentExecError):
    """Another decision was made before, or the approval has expired; nothing was changed."""

    def __init__(self, approval: Approval) -> None:
        by = f" by {approval.decided_by}" if approval.decided_by else ""
        super().__init__(f"Approval {approval.id} ({approval.tool}) is already {approval.status}{by}.")
        self.approval = approval
        """The approval with the decision that counts."""


class ApprovalVoid(AgentExecError):
    """The activity no longer waits for this decision: it was canceled, has ended or was restarted."""

    def __init__(self, approval: Approval) -> None:
        super().__init__(
            f"Approval {approval.id} ({approval.tool}) is void: its activity no longer waits for this decision."
        )
        self.approval = approval


class QueueUnavailable(AgentExecError):
    """The server of the queue is unavailable, or refuses commands. Enqueued activities are safe in the database."""


class QueueMisconfigured(QueueUnavailable):
    """The server of the queue has an unsuitable configuration; the message says how to change it."""


class ResultTimeout(AgentExecError, TimeoutError):
    """The awaited activity has not ended within the time limit; it continues to run."""

    def __init__(self, message: str, agent_id: UUID | None = None) -> None:
        super().__init__(message)
        self.agent_id = agent_id


class TaskFailed(AgentExecError):
    """The awaited activity ended in `error`."""

    def __init__(self, agent_id: UUID, error: str, attempts: int, traceback: str = "", is_final: bool = False) -> None:
        super().__init__(f"Activity {agent_id} failed after {attempts} attempt(s): {error}")
        self.agent_id = agent_id
        self.error = error
        self.attempts = attempts
        self.traceback = traceback
        self.is_final = is_final
        """Whether no retry can fix the error, not even one of a waiting activity, as opposed to retries
        that are used up."""


class TaskCanceled(AgentExecError):
    """The awaited activity was canceled."""

    def __init__(self, agent_id: UUID) -> None:
        super().__init__(f"Activity {agent_id} was canceled.")
        self.agent_id = agent_id


class NotAuthorized(AgentExecError):
    """The task's `authorize` did not let this user run it with this context; nothing was written."""


class UserFacingError(AgentExecError):
    """An error whose text is written for users; raise it, or a class derived from it, in a handler.

    Users without the monitor permission read the text. Of any other exception they read the class name only.
    """


class ResultError(AgentExecError):
    """The result of a handler does not match its declared type, or cannot be stored."""


class UnhandledInterruption(AgentExecError):
    """A handler returned although a run of its agent waits for approvals that the handler has not processed."""


class ScheduleError(AgentExecError, ValueError):
    """A schedule cannot work: no due times, an unknown time zone, an impossible option."""


class ModelsUnavailable(AgentExecError):
    """No model of a `ResilientModel` has answered; its `__cause__` is the error of a call, if there was one."""

    def __init__(self, message: str, retry_in: float = 0.0) -> None:
        super().__init__(message)
        self.headers = {"retry-after": f"{retry_in:.1f}"} if retry_in else {}
        """The wait for an open circuit breaker, in the form of a provider's error: the next attempt waits for it."""

    def __reduce__(self) -> tuple[type[ModelsUnavailable], tuple[str, float]]:
        return ModelsUnavailable, (str(self), float(self.headers.get("retry-after", 0)))


class EmbeddedServerError(AgentExecError):
    """The embedded Valkey server cannot be used; the message says what to do."""
