"""Hooks around `os.fork`: locks that a fork waits for, and state that a forked process must not inherit.

A forked process has only the thread that called `fork`: the parent's other threads do not exist in it, and a lock that
another thread held stays locked. Objects with threads or locks register here, in their constructor or in the
`install()` of their package. Only this module registers hooks with the interpreter.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol


class Lock(Protocol):
    """The part of `threading.Lock` and `threading.RLock` that a fork needs."""

    def acquire(self) -> bool:
        """Wait for the lock."""

    def release(self) -> None:
        """Release the lock."""


_resets: list[Callable[[], object]] = []
_locks: list[Lock] = []
_is_installed = False


def reset_after_fork(reset: Callable[[], object]) -> None:
    """Call `reset` in every process that this process forks. A second registration of the same callable has no effect.

    `reset` must replace locks rather than acquire them.
    """
    if reset not in _resets:
        _resets.append(reset)


def hold_during_fork(lock: Lock) -> None:
    """Hold `lock` while the process forks, so that the forked process inherits neither it nor half-done work.

    Locks are acquired in the order of their registration: register a lock before those that are acquired under it.
    """
    if not any(lock is known for known in _locks):
        _locks.append(lock)


def install() -> None:
    """Register the hooks with the interpreter, once per process; called when the app is ready."""
    global _is_installed
    if not _is_installed:
        os.register_at_fork(before=_acquire, after_in_parent=_release, after_in_child=_start_child)
        _is_installed = True


def _acquire() -> None:
    for lock in _locks:
        lock.acquire()


def _release() -> None:
    for lock in reversed(_locks):
        lock.release()


def _start_child() -> None:
    _release()
    for reset in _resets:
        reset()
