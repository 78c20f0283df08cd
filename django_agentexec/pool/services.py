"""The services of a pool: threads besides supervision, such as the scheduler. Installed apps register theirs.

So an app on top of this package runs inside of `runagentworkers` without being imported by it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..background import PoolService


@dataclass(frozen=True, slots=True)
class ServiceFactory:
    """How a pool gets a duty."""

    name: str
    """What its operator knows it by."""
    make: Callable[[str], PoolService]
    """Called with the name of the pool."""
    app_label: str
    """The app whose tables it needs."""


_makers: dict[str, ServiceFactory] = {}


def register_service(name: str, make: Callable[[str], PoolService], *, app_label: str) -> None:
    """Have every pool do this; call it in the `ready` of an app."""
    _makers[name] = ServiceFactory(name, make, app_label)


def registered_services() -> Mapping[str, ServiceFactory]:
    """Return the duties that installed apps have added, by name."""
    return dict(_makers)
