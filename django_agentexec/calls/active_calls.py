"""`ActiveCalls`: the calls of an activity that are in progress, so that a suspension interrupts none of them."""

from __future__ import annotations

import asyncio

_SEPARATORS = ("/", "~", "^", "+")


class ActiveCalls:
    """The paths of runs that call a model, and of tool calls. Calls may end in other threads than that of a wait."""

    def __init__(self) -> None:
        self._models: set[str] = set()
        self._tools: set[str] = set()
        self._waiting: dict[str, list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]]] = {}

    def begin_model(self, path: str) -> None:
        """Note that the run at `path` calls its model."""
        self._models.add(path)

    def end_model(self, path: str) -> None:
        """Note the end of that call; without effect if it is noted."""
        self._models.discard(path)
        self._wake()

    def begin_tool(self, path: str) -> None:
        """Note that the tool call starts whose inside is `path`."""
        self._tools.add(path)

    def end_tool(self, path: str) -> None:
        """Note the end of that call."""
        self._tools.discard(path)
        self._wake()

    async def others_ended(self, path: str) -> None:
        """Wait, in the run at `path`, until the only calls in progress are those that wait here.

        A tool call is not awaited if a run inside it waits here. The SDK cancels the other tools of a turn, and the
        model call beside a guardrail, if one of them raises.
        """
        entry = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
        self._waiting.setdefault(path, []).append(entry)
        try:
            self._wake()
            await entry[1]
        finally:
            self._waiting[path].remove(entry)
            if not self._waiting[path]:
                del self._waiting[path]

    def _wake(self) -> None:
        waiting = dict(self._waiting)
        if not waiting or self._are_others_active(list(waiting)):
            return
        for entries in waiting.values():
            for loop, future in list(entries):
                loop.call_soon_threadsafe(_finish, future)

    def _are_others_active(self, waiting: list[str]) -> bool:
        if any(path not in waiting for path in list(self._models)):
            return True
        return any(not any(_is_around(tool, path) for path in waiting) for tool in list(self._tools))


def _is_around(tool: str, path: str) -> bool:
    return path == tool or path.startswith(tuple(tool + separator for separator in _SEPARATORS))


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
