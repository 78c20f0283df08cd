"""Statuses, priorities and other enumerations of the models; importable from `django_agentexec.models`, too."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


class Status(models.TextChoices):
    """The states of an activity; the values are those of the wire format."""

    QUEUED = "queued", _("Queued")
    RUNNING = "running", _("Running")
    COMPLETE = "complete", _("Complete")
    ERROR = "error", _("Error")
    CANCELED = "canceled", _("Canceled")


ACTIVE = (Status.QUEUED, Status.RUNNING)
FINISHED = (Status.COMPLETE, Status.ERROR, Status.CANCELED)
FAILED_OR_CANCELED = (Status.ERROR, Status.CANCELED)


class Priority(models.IntegerChoices):
    """The order of a queue: every HIGH before every NORMAL before every LOW; equal priorities in order of arrival."""

    HIGH = 1, _("High")
    NORMAL = 4, _("Normal")
    LOW = 7, _("Low")


class HookFlag(models.IntegerChoices):
    """Flags of `Activity.hook_flags`: the hooks that run when it ends. Without flags there is no extra cost."""

    NONE = 0
    CHILD = 1
    """It was spawned: its parent may be waiting for it."""
    PARENT = 2
    """It has spawned children, which are canceled when it fails or is canceled."""
    TRACKED = 4
    """A tracker counts it."""


class StepState(models.TextChoices):
    """The states of a pipeline's step; the values are those of the wire format."""

    RUNNING = "running", _("Running")
    COMPLETE = "complete", _("Complete")
    ERROR = "error", _("Error")


class WaitingFor(models.TextChoices):
    """The reasons for which an activity is suspended; the values are those of the wire format."""

    CHILDREN = "children", _("Children")
    APPROVAL = "approval", _("Approval")
    ANSWER = "answer", _("Answer")
    BUDGET = "budget", _("Budget")
    EVENT = "event", _("Event")
    LIMIT = "limit", _("Limit of a provider")


DECISIONS = (WaitingFor.APPROVAL, WaitingFor.ANSWER)
"""The reasons that end with a decision of a person."""

CONDITIONS = (WaitingFor.BUDGET, WaitingFor.LIMIT)
"""The reasons that end at a time, or when `resume` is called."""


class LineType(models.TextChoices):
    """The kinds of events that log lines describe; the values are those of the wire format."""

    STATUS = "status", _("Status")
    """A change of the status, or of what the activity waits for."""
    PROGRESS = "progress", _("Progress")
    """A message of the handler or of an agent."""
    HANDOFF = "handoff", _("Handoff")
    """An agent hands over to another agent."""
    APPROVAL = "approval", _("Approval")
    """A request for a decision, or a decision."""


class CallKind(models.TextChoices):
    """The kinds of recorded calls; the values are those of the wire format."""

    AGENT = "agent", _("Agent")
    """One run of an agent: the node of the trace that holds its model and tool calls."""
    MODEL = "model", _("Model")
    TOOL = "tool", _("Tool")
    ONCE = "once", _("Once")
    """A side effect of a handler, recorded by `attempt.once`."""


class CallState(models.TextChoices):
    """The states of recorded calls; the values are those of the wire format."""

    STARTED = "started", _("Started")
    DONE = "done", _("Done")
    FAILED = "failed", _("Failed")
    IN_DOUBT = "in_doubt", _("In doubt")
    """Its process died during the call, and the model was informed that the outcome is unknown."""
    REJECTED = "rejected", _("Rejected")
    """A person did not approve it."""


class ApprovalKind(models.TextChoices):
    """The kinds of decisions that an agent waits for; the values are those of the wire format."""

    APPROVAL = "approval", _("Approval")
    QUESTION = "question", _("Question")
    IN_DOUBT = "in_doubt", _("Call in doubt")


class ApprovalStatus(models.TextChoices):
    """The states of approvals; the values are those of the wire format."""

    PENDING = "pending", _("Pending")
    APPROVED = "approved", _("Approved")
    REJECTED = "rejected", _("Rejected")
    EXPIRED = "expired", _("Expired")
    VOID = "void", _("Void")


class ApprovalScope(models.TextChoices):
    """The validity of a decision: this call, or all later calls of the tool within the run."""

    ONCE = "once", _("This call")
    RUN = "run", _("All calls of this run")


class OnExpiry(models.TextChoices):
    """The outcome of an approval that nobody decides in time."""

    APPROVE = "approve", _("Approve")
    REJECT = "reject", _("Reject")
    FAIL = "fail", _("Fail the activity")


class BudgetScope(models.TextChoices):
    """The activities that a budget covers, each with its children; the values are those of the wire format."""

    ALL = "all", _("Everything")
    TASK = "task", _("A task")
    METADATA = "metadata", _("Metadata")
    """The activities with a value in their metadata, such as those of a tenant."""
    ACTIVITY = "activity", _("One activity")


class BudgetPeriod(models.TextChoices):
    """The time for which the limit of a budget applies; the values are those of the wire format."""

    RUN = "run", _("Each run")
    """One activity with its children, in all its attempts."""
    DAY = "day", _("Day")
    MONTH = "month", _("Month")


class BudgetUnit(models.TextChoices):
    """The unit of a budget's limit; the values are those of the wire format."""

    MONEY = "money", _("US dollars")
    TOKENS = "tokens", _("Tokens")


class BudgetAction(models.TextChoices):
    """The consequence of a call that would exceed a budget; the values are those of the wire format."""

    SUSPEND = "suspend", _("Suspend the activity")
    FAIL = "fail", _("Fail the activity")
    NOTIFY = "notify", _("Only notify")


BUDGET_THRESHOLDS = (50, 80, 100)
"""The percentages of a limit at which `budget_threshold` is sent."""
