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
