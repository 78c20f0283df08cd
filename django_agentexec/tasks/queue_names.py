"""Names of queues that no pool serves by default: most often a typo, which would let activities wait for ever."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Collection

from ..conf import conf

logger = logging.getLogger(__name__)

MAX_WARNINGS = 1_000  # names that are remembered, as names may come from outside
_warned: set[str] = set()


def undeclared_queue_problem(name: str, known: Collection[str] = ()) -> str:
    """Return why activities in queue `name` may never run, with the closest known name; "" if it is declared.

    Declared is what `AGENTEXEC["QUEUES"]` names. `known` are further names of which it may be a misspelling.
    """
    declared = conf.QUEUES
    if name in declared:
        return ""
    close = difflib.get_close_matches(name, [*declared, *known], 1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return (
        f"queue {name!r} is not in AGENTEXEC['QUEUES'] ({', '.join(declared)}), so only a pool that names it "
        f"(runagentworkers --queues {name}) runs what waits there.{hint}"
    )


def warn_of_undeclared_queue(task: str, name: str) -> None:
    """Log once per process and name that an enqueue uses a queue that is not declared."""
    if name in _warned or name in conf.QUEUES:
        return
    if len(_warned) < MAX_WARNINGS:
        _warned.add(name)
    logger.warning("Task %r: %s", task, undeclared_queue_problem(name), extra={"task": task, "queue": name})
