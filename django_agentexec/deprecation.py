"""Deprecated names of modules: they stay importable for some releases, and emit a `DeprecationWarning`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

REMOVED_IN = "0.4"


def warn_deprecated(module: str, name: str, replacement: str, *, stacklevel: int = 3) -> None:
    """Warn that `name` of `module` is deprecated; by default the warning names the caller of the caller."""
    warnings.warn(
        f"{module}.{name} is deprecated and will be removed in version {REMOVED_IN}: use {replacement}.",
        DeprecationWarning,
        stacklevel=stacklevel,
    )


def deprecated_name(module: str, name: str, replacements: Mapping[str, Any]) -> Any:
    """Return the replacement of a deprecated name, with a warning; for a module's `__getattr__`.

    Raises `AttributeError` for other names.
    """
    if name not in replacements:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    warn_deprecated(module, name, replacements[name].__name__, stacklevel=4)
    return replacements[name]
