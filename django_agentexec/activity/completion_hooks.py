"""What follows from the end of an activity that has ties: who else must hear of it, after the commit.

The writer calls `follow_up`, the reconciler `heal`; the modules that know what to do register themselves by
`hear`. What a crash cuts off between an end and its follow-up is healed within `RECONCILE_INTERVAL`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from django.db import DatabaseError, InterfaceError

from ..exceptions import ActivityLocked
from ..models import Activity, HookFlag

logger = logging.getLogger(__name__)

OnEnd = Callable[[Sequence[Activity]], None]
Heal = Callable[[], None]

_hooks: dict[HookFlag, tuple[OnEnd, Heal]] = {}


def register_hook(tie: HookFlag, on_end: OnEnd, repair_missed: Heal) -> None:
    """Have `on_end` called with ended activities that have this tie, and `heal` to find those it was not called for.

    Both must bear to be called twice for the same end. The rows are as they were committed; `agent_id`,
    `status` and `ties` are loaded.
    """
    _hooks[tie] = on_end, repair_missed


def run_hooks(activities: Sequence[Activity]) -> None:
    """Tell of ended activities. One that fails must not keep the others from hearing."""
    for tie, (on_end, _) in _hooks.items():
        tied = [activity for activity in activities if activity.hook_flags & tie]
        if not tied:
            continue
        try:
            on_end(tied)
        except ActivityLocked as error:
            logger.warning("%s The reconciler of a pool passes the end of its children on.", error)
        except Exception:
            logger.exception(
                "The end of %d activities was not passed on; the reconciler of a pool will do it.", len(tied)
            )


def repair_missed() -> None:
    """Find ends whose follow-up did not happen, and do it now."""
    for _, heal_one in _hooks.values():
        try:
            heal_one()
        except ActivityLocked as error:
            logger.warning("%s Ends are passed on to it later.", error)
        except (DatabaseError, InterfaceError):
            raise
        except Exception:  # it must not keep the others, nor the reconciler, from their work
            logger.exception("Ends that were not passed on could not be passed on now, either.")
