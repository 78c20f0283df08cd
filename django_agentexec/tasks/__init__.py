"""Tasks: `@task` registers a function, `enqueue` creates its activities, `registry` holds all tasks."""

from .attempt import Attempt
from .definition import AnyTask, Task, TaskDefinition
from .enqueue import aenqueue, aenqueue_many, enqueue, enqueue_many
from .options import EnqueueOptions
from .registry import registry, task
from .run import ActivityHandle, Run

__all__ = [
    "ActivityHandle",
    "AnyTask",
    "Attempt",
    "EnqueueOptions",
    "Run",
    "Task",
    "TaskDefinition",
    "aenqueue",
    "aenqueue_many",
    "enqueue",
    "enqueue_many",
    "registry",
    "task",
]
