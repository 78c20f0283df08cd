"""Deprecated names of pool services; they will be removed after the next release."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from ..background import PoolService
from ..pool.services import register_service

Duty = PoolService


def add_duty(name: str, make: Callable[[str], PoolService], *, app_label: str) -> None:
    """Register a service of every pool (deprecated: use `django_agentexec.pool.services.register_service`)."""
    warnings.warn(
        "django_agentexec.worker.duties.add_duty is deprecated; use django_agentexec.pool.services.register_service.",
        DeprecationWarning,
        stacklevel=2,
    )
    register_service(name, make, app_label=app_label)
