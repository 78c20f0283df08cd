"""Runner of the health probes: each in a separate thread, for at most `AGENTEXEC["HEALTH_TIMEOUT"]` seconds."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from django.db import DatabaseError, InterfaceError, connections, transaction
from django.utils.translation import get_language, override
from django.utils.translation import gettext as _

from ..activity.store import database
from ..background import start_daemon_thread
from ..conf import conf
from ..exceptions import AgentExecError
from ..forks import reset_after_fork

logger = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """The result of a probe."""

    ok: bool
    detail: str
    problems: Sequence[str] = ()
    """Sentences for people about other findings, which do not fail the probe."""


NO_ANSWER = Outcome(False, "no answer")


@dataclass(frozen=True, slots=True)
class Probe:
    """A named check of one component."""

    name: str
    check: Callable[[], Outcome]


@dataclass(slots=True)
class _Run:
    """One execution of a probe, shared by all concurrent health checks."""

    started: float
    finished: threading.Event = field(default_factory=threading.Event)
    outcome: Outcome = NO_ANSWER


class ProbeRunner:
    """A runner of concurrent probes. A probe that does not return in time has failed.

    A thread that waits for a server cannot be stopped. It continues, and its probe is not started again until it
    returns. A server that never answers therefore costs one thread per probe and process.
    """

    def __init__(self) -> None:
        self._reset()
        reset_after_fork(self._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[str, _Run] = {}

    def run(self, probes: Sequence[Probe]) -> list[Outcome]:
        """Return the outcome of each probe within `AGENTEXEC["HEALTH_TIMEOUT"]` seconds.

        Inside a transaction of the caller (as in a test case) the probes run in turn on its connection: another
        connection could neither see its rows nor, on SQLite, write.
        """
        if connections[database()].in_atomic_block:
            return [_outcome_in_transaction(probe) for probe in probes]
        timeout = conf.HEALTH_TIMEOUT
        deadline = time.monotonic() + timeout
        runs = [self._start(probe) for probe in probes]
        return [_await(run, deadline, timeout) for run in runs]

    def _start(self, probe: Probe) -> _Run:
        with self._lock:
            run = self._runs.get(probe.name)
            if run is None:
                run = self._runs[probe.name] = _Run(time.monotonic())
                try:
                    start_daemon_thread(f"agentexec-health-{probe.name}", self._run, probe, run, get_language())
                except RuntimeError as error:  # no thread can be started
                    self._finish(probe, run, Outcome(False, str(error)))
        return run

    def _run(self, probe: Probe, run: _Run, language: str | None) -> None:
        outcome = NO_ANSWER
        try:
            with override(language):
                outcome = _outcome(probe)
        finally:
            connections.close_all()
            with self._lock:
                self._finish(probe, run, outcome)

    def _finish(self, probe: Probe, run: _Run, outcome: Outcome) -> None:
        self._runs.pop(probe.name, None)
        run.outcome = outcome
        run.finished.set()


def _await(run: _Run, deadline: float, timeout: float) -> Outcome:
    # The timeout starts with the probe, not with this health check.
    if run.finished.wait(max(0.0, min(deadline, run.started + timeout) - time.monotonic())):
        return run.outcome
    seconds = max(time.monotonic() - run.started, timeout)
    return Outcome(False, _("no answer for %(seconds).1f s") % {"seconds": seconds})


def _outcome_in_transaction(probe: Probe) -> Outcome:
    try:
        with transaction.atomic(using=database()):
            outcome = _outcome(probe)
            # This also resets the limits that a probe has set for its transaction.
            transaction.set_rollback(True, using=database())
    except (DatabaseError, InterfaceError) as error:
        return Outcome(False, str(error))
    return outcome


def _outcome(probe: Probe) -> Outcome:
    try:
        return probe.check()
    except (AgentExecError, DatabaseError, InterfaceError) as error:
        return Outcome(False, str(error).strip() or type(error).__name__)
    except Exception as error:  # a fault of a probe is a failed check, not a failed request
        logger.exception("The health probe %r failed.", probe.name)
        return Outcome(False, f"{type(error).__name__}: {error}")


runner = ProbeRunner()
