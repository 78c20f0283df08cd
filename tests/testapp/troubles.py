"""Troubles of a process, each of which happens once per folder: a lack of memory of two kinds."""

from __future__ import annotations

import os
import resource
import threading
from pathlib import Path

ROOM = 64 * 1024**2  # bytes beyond the present address space
HOARD = 400 * 1024**2  # bytes of memory that are used
_STEP = 16 * 1024**2


def exceed_address_space(folder: str) -> None:
    """Allocate more than a limit allows: raise `MemoryError`."""
    if not _is_first(folder, "memory_error"):
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, before[1]))
    try:
        bytearray(16 * ROOM)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def hoard_memory(folder: str) -> None:
    """Use memory, and wait: the test ends the process, as the kernel or `systemd-oomd` does."""
    if not _is_first(folder, "hoard"):
        return
    hoard = [os.urandom(1) * _STEP for _ in range(HOARD // _STEP)]
    threading.Event().wait(60)
    raise AssertionError(f"Nobody has ended a process with {len(hoard) * _STEP} bytes.")


def resident_bytes(pid: int) -> int:
    """Return the memory that a process uses; 0 if it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):
        return 0


def _is_first(folder: str, name: str) -> bool:
    try:
        Path(folder, name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
