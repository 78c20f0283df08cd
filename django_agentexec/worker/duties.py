"""Duties: what a pool does in threads of its own besides supervising. Installed apps add theirs.

So whatever stands on top of this package, such as the schedules, runs inside of `runagentworkers` without being
imported from below.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from django.db import DatabaseError, InterfaceError, close_old_connections, connections

from ..exceptions import QueueUnavailable

logger = logging.getLogger(__name__)

FIRST_PAUSE = 1.0  # seconds after an error; twice as long after each that follows
LONGEST_PAUSE = 16.0
ENOUGH_FAILURES = 10  # to count; the pause is at its longest by then


class Duty(ABC):
    """Calls `step` again and again, in a thread, and never dies of an error."""

    def __init__(self, holder: str) -> None:
        self.holder = holder
        """The name of the pool."""
        self._failures = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"agentexec-{type(self).__name__}", daemon=True)

    @abstractmethod
    def step(self) -> float:
        """Do what there is to do, and return the seconds until there may be more."""

    @property
    def stopping(self) -> bool:
        """Whether it is to end: a long step looks here."""
        return self._stopping.is_set()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Let it end after the present step; returns at once."""
        self._stopping.set()

    def join(self, seconds: float) -> None:
        """Wait for its end, `seconds` at most."""
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        while not self._stopping.is_set():
            close_old_connections()
            self._stopping.wait(self._safe_step())
            close_old_connections()
        connections.close_all()

    def _safe_step(self) -> float:
        try:
            pause = max(0.0, self.step())
            self._failures = 0
            return pause
        except (QueueUnavailable, DatabaseError, InterfaceError) as error:
            logger.warning("%s has to wait: %s", type(self).__name__, error)
        except Exception:
            logger.exception("%s failed; it goes on.", type(self).__name__)
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**self._failures)
        self._failures = min(self._failures + 1, ENOUGH_FAILURES)
        return pause


@dataclass(frozen=True, slots=True)
class DutyMaker:
    """How a pool gets a duty."""

    name: str
    """What its operator knows it by."""
    make: Callable[[str], Duty]
    """Called with the name of the pool."""
    app_label: str
    """The app whose tables it needs."""


_makers: dict[str, DutyMaker] = {}


def add_duty(name: str, make: Callable[[str], Duty], *, app_label: str) -> None:
    """Have every pool do this; call it in the `ready` of an app."""
    _makers[name] = DutyMaker(name, make, app_label)


def known_duties() -> Mapping[str, DutyMaker]:
    """Return the duties that installed apps have added, by name."""
    return dict(_makers)
