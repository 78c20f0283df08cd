"""Kill points: named places of a handler, at one of which its process dies.

A folder per activity has the list of the places that were reached (`points`), the side effects (`effects`), and at
most one planned death (`plan`), which is carried out once. The process stops all its threads there, as by SIGKILL. The
test reads what is committed, and ends the process with `end_stopped`.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path


def reach(folder: str, place: str) -> None:
    """Note a place; stop here if a death is planned."""
    if is_planned(folder, place):
        os.unlink(f"{folder}/plan")
        Path(folder, "stopping").write_text(str(os.getpid()))
        os.rename(f"{folder}/stopping", f"{folder}/stopped")
        os.kill(os.getpid(), signal.SIGSTOP)
    _append(folder, "points", _numbered(folder, place))


def is_planned(folder: str, place: str) -> bool:
    """Return whether the process is about to die at this place."""
    try:
        return Path(folder, "plan").read_text() == _numbered(folder, place)
    except FileNotFoundError:
        return False


def plan(folder: str, numbered_place: str) -> None:
    """Let the process die at this place, as `points` lists it."""
    Path(folder, "plan").write_text(numbered_place)


def stopped_process(folder: str) -> int | None:
    """Return the id of the process that waits for its death, or None."""
    try:
        return int(Path(folder, "stopped").read_text())
    except FileNotFoundError:
        return None


def has_died(folder: str) -> bool:
    """Return whether the planned death has happened."""
    return Path(folder, "killed").exists()


def end_stopped(folder: str) -> None:
    """Kill the process that waits for its death."""
    pid = stopped_process(folder)
    assert pid is not None
    os.rename(f"{folder}/stopped", f"{folder}/killed")
    os.kill(pid, signal.SIGKILL)


def effect(folder: str, text: str) -> None:
    """Have a side effect."""
    _append(folder, "effects", text)


def lines(folder: str, name: str) -> list[str]:
    """Return the lines of one of the lists."""
    path = Path(folder, name)
    return path.read_text().splitlines() if path.exists() else []


def _numbered(folder: str, place: str) -> str:
    number = sum(1 for line in lines(folder, "points") if line.rpartition("#")[0] == place)
    return f"{place}#{number}"


def _append(folder: str, name: str, line: str) -> None:
    with open(Path(folder, name), "a") as file:
        file.write(f"{line}\n")
        file.flush()
