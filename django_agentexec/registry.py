"""The registry of tasks. It imports no other part of the package, so every layer can look up a task by its name."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from django.utils.module_loading import autodiscover_modules

from .conf import conf
from .exceptions import TaskDefinitionError, UnknownTask
from .translation import gettext as _

if TYPE_CHECKING:
    from .tasks.definition import AnyTask


logger = logging.getLogger(__name__)


class Registry:
    """All tasks by name. The first lookup of an unknown name imports the task modules of every installed app.

    Those modules (`AGENTEXEC["TASK_MODULES"]`) usually import the agents SDK, which takes more than a second, so they
    are not imported when Django starts.
    """

    def __init__(self) -> None:
        self._tasks: dict[str, AnyTask] = {}
        self._discovered = False
        self._lock = threading.RLock()

    def register(self, definition: AnyTask) -> None:
        """Add a task. Raises `TaskDefinitionError` if another function has its name."""
        known = self._tasks.get(definition.name)
        # A module that is imported again may replace its own tasks.
        if known is not None and _identity(known) != _identity(definition):
            raise TaskDefinitionError(
                f"Two tasks are called {definition.name!r}: {'.'.join(_identity(known))} "
                f"and {'.'.join(_identity(definition))}. Rename one of them."
            )
        self._tasks[definition.name] = definition

    def unregister(self, name: str) -> None:
        """Remove a task; for tests."""
        self._tasks.pop(name, None)

    def get(self, name: str) -> AnyTask:
        """Return the task of this name, or raise `UnknownTask` with the closest names."""
        if name not in self._tasks:
            self.discover()
        try:
            return self._tasks[name]
        except KeyError:
            raise UnknownTask(name, self._tasks) from None

    def __iter__(self) -> Iterator[AnyTask]:
        self.discover()
        return iter(list(self._tasks.values()))

    def known(self) -> list[AnyTask]:
        """Return the tasks registered so far, without importing any module."""
        return list(self._tasks.values())

    def discover(self) -> None:
        """Import the task modules of every installed app, once. Raises what their code raises."""
        with self._lock:
            if self._discovered:
                return
            self._discovered = True
            try:
                autodiscover_modules(*conf.TASK_MODULES)
            except BaseException:
                self._discovered = False
                raise


registry = Registry()


def get_task(task: str | AnyTask) -> AnyTask:
    """Return a task by its name; a task itself is returned unchanged. Raises `UnknownTask`."""
    if hasattr(task, "load_context"):
        return cast("AnyTask", task)
    return registry.get(task)


def unknown_task_note(name: str, *, names_others: bool = True) -> str:
    """Return a remark about a name that no task of this process has, with similar names; "" if a task has it.

    Without `names_others` it names no other task, for users who may not read the names of all. Workers may have tasks
    that this process does not import, so the name is no error.
    """
    try:
        registry.get(name)
    except UnknownTask as error:
        problem = str(error) if names_others else _("There is no task %(name)r.") % {"name": name}
        return _("%(problem)s It has no effect unless a worker registers a task of this name.") % {"problem": problem}
    except Exception:  # a module of tasks may raise anything
        logger.warning("The modules of tasks cannot be imported.", exc_info=True)
    return ""


def _identity(task: AnyTask) -> tuple[str, str]:
    return task.handler.__module__, task.handler.__qualname__
