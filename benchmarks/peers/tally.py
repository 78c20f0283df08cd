"""The record of starts and ends of handlers: one file to which every worker process appends.

A write of a few bytes at the end of a file is atomic, takes two microseconds and asks no server, so it disturbs a peer
less than a counter in Redis would, and the same for each. Tasks write, the measurements read.
"""

from __future__ import annotations

import os
import struct
import time
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import NamedTuple

_FORMAT = struct.Struct("<qqii")
VARIABLE = "BENCHMARK_TALLY"


class Kind(IntEnum):
    START = 0
    END = 1


class Record(NamedTuple):
    """The start or end of a handler: nanoseconds since the epoch, the number of the task, its process, the kind."""

    at: int
    number: int
    pid: int
    kind: Kind


@cache
def _descriptor(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def note(kind: Kind, number: int) -> None:
    """Append the start or end of task `number` to the file that the environment names."""
    os.write(_descriptor(os.environ[VARIABLE]), _FORMAT.pack(time.time_ns(), number, os.getpid(), kind))


class Tally:
    """The reader of the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def __len__(self) -> int:
        return self.path.stat().st_size // _FORMAT.size

    def records(self) -> list[Record]:
        """Return all entries, in the order of their writing."""
        found = _FORMAT.iter_unpack(self.path.read_bytes()[: len(self) * _FORMAT.size])
        return [Record(at, number, pid, Kind(kind)) for at, number, pid, kind in found]

    def numbers(self, kind: Kind) -> set[int]:
        """Return the numbers of the tasks that have started or ended."""
        return {record.number for record in self.records() if record.kind is kind}

    def clear(self) -> None:
        os.truncate(self.path, 0)
