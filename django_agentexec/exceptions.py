"""The exceptions of this package. All derive from `AgentExecError`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING
from uuid import UUID

from .translation import gettext as _

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
            hint = _("Did you mean %(names)s?") % {"names": _(" or ").join(repr(match) for match in close)}
        elif names:
            hint = _("Registered are: %(names)s.") % {"names": ", ".join(names)}
        else:
            hint = _("No task is registered: is its app in INSTALLED_APPS, with a module agents.py or tasks.py?")
        super().__init__(_("There is no task %(name)r.") % {"name": name} + f" {hint}")
        self.name = name


class InvalidContext(AgentExecError, ValueError):
    """The context does not fit the task; nothing was written."""

    def __init__(self, message: str, problems: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.problems = list(problems)
        """For a context that could not be loaded, a line per problem: `path: problem`."""


class ContextTooLarge(InvalidContext):
    """The context is larger than `MAX_CONTEXT_BYTES`; nothing was written."""


class SpawnMismatch(AgentExecError):
    """A handler that runs again spawns other children than before; a retry would do the same."""


class PipelineChanged(AgentExecError):
    """The result of a finished step no longer fits the code of the pipeline; the message names the remedy."""


class InvalidOption(AgentExecError, ValueError):
    """An option of `enqueue` has an impossible value; nothing was written."""


class ActivityNotFound(AgentExecError, LookupError):
    """No activity has this id and matches the filter."""

    def __init__(self, agent_id: object) -> None:
        text = _("There is no activity %(agent_id)s.") % {"agent_id": agent_id}
        if isinstance(agent_id, UUID):
            text += " " + _("It was deleted, or the transaction that enqueued it was rolled back.")
        super().__init__(text)
        self.agent_id = agent_id


class InvalidTransition(AgentExecError):
    """The status of the activity does not allow this change, for example progress after its end."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message
        """Without the id: the same for every activity that is refused for the same cause."""


class HeldBack(InvalidTransition):
    """A pause or a limit does not permit the start; the activity waits in the queue with the `limits` of these keys."""

    def __init__(self, message: str, keys: Iterable[str]) -> None:
        super().__init__(message)
        self.keys = list(keys)


class StaleAttempt(InvalidTransition):
    """This attempt no longer owns the activity: its lease was lost, or the activity was canceled.

    Raised by writes of an attempt whose fence differs from the row's. Stop working: the activity may already run in
    another attempt.
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
        waited = _(" and stayed so for %(seconds)s s") % {"seconds": f"{seconds:g}"} if seconds else ""
        if len(self.agent_ids) == 1:
            text = _(
                "Activity %(activity)s is locked by another transaction%(waited)s. Try again when that transaction "
                "has ended."
            )
        else:
            text = _(
                "Some of %(count)s activities are locked by another transaction%(waited)s. Try again when that "
                "transaction has ended."
            )
        name = f"{self.agent_ids[0]}{f' ({agent_type})' if agent_type else ''}" if self.agent_ids else ""
        super().__init__(text % {"activity": name, "count": len(self.agent_ids), "waited": waited})


class ApprovalNotFound(AgentExecError, LookupError):
    """There is no approval of this id."""

    def __init__(self, id: object) -> None:
        super().__init__(_("There is no approval %(id)s.") % {"id": id})
        self.id = id


class AlreadyDecided(AgentExecError):
    """Another decision was made before, or the approval has expired; nothing was changed."""

    def __init__(self, approval: Approval, *, differs_in_arguments: bool = False) -> None:
        text = _("Approval %(id)s (%(tool)s) is already %(status)s.")
        if approval.decided_by:
            text = _("Approval %(id)s (%(tool)s) is already %(status)s by %(by)s.")
        names = {"id": approval.id, "tool": approval.tool, "status": approval.status, "by": approval.decided_by}
        message = text % names
        if differs_in_arguments:
            message += " " + _("It was approved with other arguments.")
        super().__init__(message)
        self.approval = approval
        """The approval with the decision that counts."""
        self.differs_in_arguments = differs_in_arguments
        """Whether the call was approved before, with other arguments."""


class ApprovalVoid(AgentExecError):
    """The activity no longer waits for this decision: it was canceled, has ended or was restarted."""

    def __init__(self, approval: Approval) -> None:
        super().__init__(
            _("Approval %(id)s (%(tool)s) is void: its activity no longer waits for this decision.")
            % {"id": approval.id, "tool": approval.tool}
        )
        self.approval = approval


class BudgetExceeded(AgentExecError):
    """The next call of a model would exceed a budget whose action is to fail; the call was not made."""


class QueueUnavailable(AgentExecError):
    """The server of the queue is unavailable, or refuses commands. Enqueued activities are safe in the database."""


class QueueMisconfigured(QueueUnavailable):
    """The server of the queue has an unsuitable configuration; the message names the remedy."""


class ResultTimeout(AgentExecError, TimeoutError):
    """The awaited activity has not ended within the time limit, and is not stopped; the message names its state."""

    def __init__(self, message: str, agent_id: UUID | None = None) -> None:
        super().__init__(message)
        self.agent_id = agent_id


class TaskFailed(AgentExecError):
    """The awaited activity ended in `error`."""

    def __init__(self, agent_id: UUID, error: str, attempts: int, traceback: str = "", is_final: bool = False) -> None:
        text = _("Activity %(agent_id)s failed after %(attempts)s attempt(s): %(error)s")
        super().__init__(text % {"agent_id": agent_id, "attempts": attempts, "error": error})
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
        super().__init__(_("Activity %(agent_id)s was canceled.") % {"agent_id": agent_id})
        self.agent_id = agent_id


class NotAuthorized(AgentExecError):
    """The task's `authorize` did not permit this user to run it with this context; nothing was written."""


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
    """The embedded Valkey server cannot be used; the message names the remedy."""
