"""The limits and pauses of the rows in the memory of a worker process.

The queue's scripts apply most of them. The worker adds those of activities that were enqueued without them, such as a
pause of a task without limits: the activity returns to the queue and counts against them from then on.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection

from django.db import DatabaseError, InterfaceError

from ..exceptions import QueueUnavailable
from ..forks import reset_after_fork
from ..logs import ThrottledLogger
from ..models import Activity
from .publication import publish
from .rules import Rules, read_rules

_log = ThrottledLogger(logging.getLogger(__name__))


class RuleTable:
    """The rules as this process read them last. Thread-safe."""

    def __init__(self) -> None:
        self._rules = Rules()
        self._lock = threading.Lock()
        reset_after_fork(self._reset)

    def _reset(self) -> None:
        self._rules, self._lock = Rules(), threading.Lock()

    def load(self) -> None:
        """Read the rows. Two queries. Without the database, those known so far remain in use."""
        try:
            self._rules = read_rules()
        except (DatabaseError, InterfaceError) as error:
            _log.warn("Could not read limits and pauses; those known so far remain in use.", error)

    def is_current(self, queue: str, revision: str) -> bool:
        """Return whether claims of this revision were made under the rules that this process knows."""
        return revision == self._rules.revision(queue)

    def follow(self, queue: str, revision: str) -> None:
        """Read the rows if claims were made under other rules, and correct the queue if its rules are outdated."""
        if self.is_current(queue, revision):
            return
        with self._lock:
            self.load()
            if self.is_current(queue, revision):
                return
            try:
                self._rules = publish([queue])
            except (QueueUnavailable, DatabaseError, InterfaceError) as error:
                _log.warn("Could not pass limits and pauses on to the queue.", error)

    def missing_keys(self, activity: Activity, known: Collection[str]) -> list[str]:
        """Return the keys of limits that apply to a claimed activity besides those that its claim counts against."""
        return self._rules.missing_keys(activity, known)


table = RuleTable()
