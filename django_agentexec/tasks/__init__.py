"""Tasks: `@task` registers a function, `enqueue` creates its activities, `registry` holds all tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..deprecation import deprecated_name
from .attempt import Attempt
from .definition import AnyTask, Task
from .enqueue import aenqueue, aenqueue_many, enqueue, enqueue_many
from .options import EnqueueOptions
from .registry import registry, task
from .run import Run

if TYPE_CHECKING:
    from .definition import TaskDefinition as TaskDefinition
    from .run import ActivityHandle as ActivityHandle
else:

    def __getattr__(name: str) -> Any:
        return deprecated_name(__name__, name, {"ActivityHandle": Run, "TaskDefinition": Task})


__all__ = [
    "AnyTask",
    "Attempt",
    "EnqueueOptions",
    "Run",
    "Task",
    "aenqueue",
    "aenqueue_many",
    "enqueue",
    "enqueue_many",
    "registry",
    "task",
]
