"""SQL statements for many rows at once, for the hot paths.

The ORM's `bulk_create` and `bulk_update`, and the `__init__` of a model, do the same at five to ten times the
processor time, which is what limits a worker. Only names and values of the package's own models pass through here.
"""

from __future__ import annotations

from .fields import Insert, LockWait, Update, can_skip_locked
from .generic import build_row, clone_row, limit_lock_wait, lock_rows, needs_no_transaction, write

__all__ = [
    "Insert",
    "LockWait",
    "Update",
    "build_row",
    "can_skip_locked",
    "clone_row",
    "limit_lock_wait",
    "lock_rows",
    "needs_no_transaction",
    "write",
]
