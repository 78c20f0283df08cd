"""What the system knows of other processes."""

from __future__ import annotations

from pathlib import Path


def state_of(pid: int) -> tuple[str, int]:
    """Return the state of a process, as `ps` names it, and its parent; X if there is no such process.

    The ids of threads are taken from the same numbers, and Linux accepts them in place of their process: the id of an
    ended process may be that of a thread of another process now, and a signal to it would reach that process.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    except OSError:
        return "X", 0
    values = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    if int(values["Tgid"]) != pid:
        return "X", 0
    return values["State"][0], int(values["PPid"])


def is_alive(pid: int) -> bool:
    """Return whether the process runs. One that has ended and waits for its parent to notice does not."""
    return state_of(pid)[0] not in "ZX"
