"""The services of a pool: threads beside the supervisor, such as the scheduler. Installed apps register services.

An app on top of this package thus runs code inside `runagentworkers` without being imported by it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..background import PoolService


@dataclass(frozen=True, slots=True)
class ServiceFactory:
    """A registered service, which each pool creates at its start."""

    name: str
    """The name in the output of `runagentworkers`."""
    make: Callable[[str], PoolService]
    """Returns the service; the argument is the name of the pool."""
    app_label: str
    """The app whose tables the service needs."""


_factories: dict[str, ServiceFactory] = {}


def register_service(name: str, make: Callable[[str], PoolService], *, app_label: str) -> None:
    """Register a service of every pool; call it in the `ready` method of an app."""
    _factories[name] = ServiceFactory(name, make, app_label)


def registered_services() -> Mapping[str, ServiceFactory]:
    """Return the registered services, by name."""
    return dict(_factories)
