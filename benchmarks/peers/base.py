"""The interface of a measured peer; each module `benchmarks.peers.<name>` has a subclass named `Peer`."""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

Purpose = Literal["calls", "waits", "kills"]
"""The purpose of a fleet: short tasks, 1,000 waiting tasks, or a process that is killed."""

Arguments = Sequence[tuple[int | float, ...]]

URL_VARIABLE = "BENCHMARK_REDIS"
PURPOSE_VARIABLE = "BENCHMARK_PURPOSE"
SLOTS_VARIABLE = "BENCHMARK_SLOTS"


class BasePeer(ABC):
    """A queue with the tasks `nothing(number)` and `wait(number, seconds)` of `handlers`."""

    settings: ClassVar[dict[str, str]]
    """The settings and their reasons, as shown in the table, by purpose."""

    has_bulk: ClassVar[bool] = False
    """Whether it has a call that enqueues many tasks."""

    slots_are_processes: ClassVar[bool] = False
    """Whether a process runs one task at a time in every mode; hundreds of slots are then not measured."""

    has_keys: ClassVar[bool] = False
    """Whether tasks with the same key can be serialized without failures or polling."""

    def open(self) -> None:  # noqa: B027  # most need nothing
        """Prepare to enqueue, as an application does when it starts."""

    @abstractmethod
    def enqueue(self, task: str, arguments: Arguments) -> None:
        """Enqueue one task per item, each by a separate call, one after the other."""

    def enqueue_many(self, task: str, arguments: Arguments) -> None:
        """Enqueue all by one call, if the peer has such a call."""
        self.enqueue(task, arguments)

    def enqueue_keyed(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Enqueue `nothing(number)` under a key for each pair, if the peer supports keys."""
        raise NotImplementedError

    @abstractmethod
    def commands(self, purpose: Purpose, processes: int, slots: int) -> list[list[str]]:
        """Return the command lines that together run `processes` processes with `slots` tasks at once in each.

        The first word is a script of the peer's environment, or `python`.
        """


class AsyncPeer(BasePeer):
    """A peer whose client is asynchronous: one event loop for all its calls."""

    def open(self) -> None:
        self._runner = asyncio.Runner()
        self._runner.run(self.connect())

    def enqueue(self, task: str, arguments: Arguments) -> None:
        self._runner.run(self._enqueue_each(task, arguments))

    @abstractmethod
    async def connect(self) -> None:
        """Connect the client."""

    @abstractmethod
    async def send(self, task: str, argument: tuple[int | float, ...]) -> None:
        """Enqueue one task."""

    async def _enqueue_each(self, task: str, arguments: Arguments) -> None:
        for argument in arguments:
            await self.send(task, argument)


def redis_url() -> str:
    """Return the address of the server: a Unix socket, as for this project."""
    return os.environ[URL_VARIABLE]


def fleet_purpose() -> str:
    """Return the purpose of the fleet, in a worker."""
    return os.environ.get(PURPOSE_VARIABLE, "calls")


def fleet_slots() -> int:
    """Return the number of tasks that a process runs at once, in a worker."""
    return int(os.environ.get(SLOTS_VARIABLE, "100"))
