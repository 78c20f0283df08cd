"""Hooks that run after the commit of an activity's end: for its parent, its children and its trackers.

The writer of an end calls `run_hooks`, the reconciler `repair_missed`. The packages that provide hooks register them
with `register_hook`. If a process dies between an end and its hooks, they run within `RECONCILE_INTERVAL`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from django.db import DatabaseError, InterfaceError

from ..exceptions import ActivityLocked
from ..models import Activity, HookFlag

logger = logging.getLogger(__name__)

Hook = Callable[[Sequence[Activity]], None]
Repair = Callable[[], None]

_hooks: dict[HookFlag, tuple[Hook, Repair]] = {}
_repairs: dict[str, Repair] = {}


def register_hook(flag: HookFlag, hook: Hook, repair_missed: Repair) -> None:
    """Call `hook` with ended activities that have this flag; `repair_missed` finds ends without a call of the hook.

    Both must be idempotent: they may be called twice for the same end. The rows are as committed, with `agent_id`,
    `status` and `hook_flags` loaded.
    """
    _hooks[flag] = hook, repair_missed


def register_repair(name: str, repair_missed: Repair) -> None:
    """Call `repair_missed` in each run of the reconciler; it must be idempotent. `name` describes it in the log."""
    _repairs[name] = repair_missed


def run_hooks(activities: Sequence[Activity]) -> None:
    """Run the hooks of ended activities. An error of a hook is logged and does not prevent the other hooks."""
    for flag, (hook, _) in _hooks.items():
        flagged = [activity for activity in activities if activity.hook_flags & flag]
        if not flagged:
            continue
        try:
            hook(flagged)
        except ActivityLocked as error:
            logger.warning("%s The reconciler of a pool runs the hooks of its children later.", error)
        except Exception:
            logger.exception(
                "Could not run the %s hook for ended activities (%d); the reconciler of a pool runs it later.",
                flag.name,
                len(flagged),
            )


def repair_missed() -> None:
    """Run the hooks of ends for which they did not run, and the other repairs."""
    repairs = {f"missed {flag.name} hooks": repair for flag, (_, repair) in _hooks.items()}
    for name, repair in (repairs | _repairs).items():
        try:
            repair()
        except ActivityLocked as error:
            logger.warning("%s Its repair (%s) runs later.", error, name)
        except (DatabaseError, InterfaceError):
            raise
        except Exception:  # neither the other hooks nor the reconciler may fail because of it
            logger.exception("Could not run %s; the reconciler of a pool tries again.", name)
