"""What the system knows of other processes."""

from __future__ import annotations

from pathlib import Path


def state_of(pid: int) -> tuple[str, int]:
    """Return the state of a process, as `ps` names it, and its parent; X if it is gone."""
    try:
        state, parent, *_ = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "X", 0
    return state, int(parent)


def is_alive(pid: int) -> bool:
    """Whether the process runs. One that has ended and waits for its parent to notice does not."""
    return state_of(pid)[0] not in "ZX"
