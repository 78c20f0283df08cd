"""Tasks: `@task` registers a function, `enqueue` has a worker run it, `registry` knows them all."""

from .attempt import Attempt
from .definition import TaskDefinition
from .enqueue import ActivityHandle, aenqueue, aenqueue_many, enqueue, enqueue_many
from .registry import registry, task

__all__ = [
    "ActivityHandle",
    "Attempt",
    "TaskDefinition",
    "aenqueue",
    "aenqueue_many",
    "enqueue",
    "enqueue_many",
    "registry",
    "task",
]
