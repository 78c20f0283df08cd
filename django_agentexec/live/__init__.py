"""Live updates: committed changes for websockets, server-sent events and async iterators.

`publisher` sends change notices, `hub` reads each change once for all subscribers of a process, and `subscriber` gives
each client what is new to it. Websockets (`live.websocket`) need Channels and `"django_agentexec.live"` in
`INSTALLED_APPS`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .subscriber import Follower, follow_activity, follow_feed

__all__ = ["Follower", "follow_activity", "follow_feed"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # on first use, since an app's package is imported before its models
        return getattr(import_module(".subscriber", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
