"""The documented import path of the registry and of `@task`."""

from __future__ import annotations

from ..registry import Registry, registry
from .decorator import task

__all__ = ["Registry", "registry", "task"]
