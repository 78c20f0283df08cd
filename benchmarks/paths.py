"""The number of files of the package through which one request passes: `python -m benchmarks.paths`.

Three walks: an enqueue from the call to the message in Redis and on to its return, the same with a lock key and
metadata, and a progress report from the call to the frame of a websocket. Each is traced with `sys.setprofile`, in
every thread, on its second execution (the first fills caches). It counts files of this package, and switches: calls
from one file of the package into another, ignoring foreign code between them. Prints the figures and, with `--show`,
the walk.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType
from typing import Any

SETTLE = 0.5  # seconds after the first report, so that its effects do not count for the second
QUEUE = "queues/redis/queue.py"
PACKAGE = Path(__file__).resolve().parent.parent / "django_agentexec"


class Walk:
    """The functions that a traced call visits, as (file, function), in order; calls within a file are omitted."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, str]] = []
        self.is_recording = False
        self._prefix = f"{PACKAGE}{os.sep}"

    def note(self, frame: FrameType, event: str, argument: object) -> None:
        """Record a call; the signature is that of a function for `sys.setprofile`."""
        name, function = frame.f_code.co_filename, frame.f_code.co_name
        is_ours = name.startswith(self._prefix) and not function.startswith("<")
        if self.is_recording and event == "call" and is_ours and self._caller(frame.f_back) != name:
            self.steps.append((name.removeprefix(self._prefix), function))

    def _caller(self, frame: FrameType | None) -> str:
        while frame is not None and not frame.f_code.co_filename.startswith(self._prefix):
            frame = frame.f_back
        return "" if frame is None else frame.f_code.co_filename

    @property
    def files(self) -> list[str]:
        """The files, in the order of the first visit."""
        return list(dict.fromkeys(name for name, _ in self.steps))

    def up_to(self, file: str) -> Walk:
        """Return the part of this walk that ends with the first visit of a file."""
        part = Walk()
        part.steps = self.steps[: [name for name, _ in self.steps].index(file) + 1]
        return part

    def print(self, title: str, *, show: bool) -> None:
        """Print the figures of this walk."""
        print(f"{title}: {len(self.files)} files, {len(self.steps)} switches")
        if show:
            for name, function in self.steps:
                print(f"    {name}: {function}")


def trace_enqueue(walk: Walk) -> None:
    """Enqueue a task, outside of any transaction."""
    from .agents import Nothing, noop

    noop.enqueue(Nothing())
    walk.is_recording = True
    noop.enqueue(Nothing())
    walk.is_recording = False


def trace_keyed_enqueue(walk: Walk) -> None:
    """Enqueue a task with a lock key and metadata, outside of any transaction."""
    from .agents import Key, keyed

    keyed.enqueue(Key(key=1), metadata={"organization_id": "org-1"})
    walk.is_recording = True
    keyed.enqueue(Key(key=1), metadata={"organization_id": "org-1"})
    walk.is_recording = False


async def trace_progress(walk: Walk) -> None:
    """Report progress of an activity, and receive it from a websocket."""
    from asgiref.sync import sync_to_async
    from channels.testing import WebsocketCommunicator

    from django_agentexec import activity

    from .asgi import application
    from .sockets import session_cookie

    agent_id = await activity.acreate("progress")
    cookie = await sync_to_async(session_cookie)()
    headers = [(b"origin", b"http://127.0.0.1"), (b"host", b"127.0.0.1"), (b"cookie", cookie.encode())]
    communicator: Any = WebsocketCommunicator(application, f"/ws/agents/activities/{agent_id}/", headers=headers)
    connected, _ = await communicator.connect()
    assert connected
    await _receive(communicator, "snapshot")
    await activity.aupdate(agent_id, "the first message", 10)
    await _receive(communicator, "the first message")
    await asyncio.sleep(SETTLE)
    walk.is_recording = True
    await activity.aupdate(agent_id, "the second message", 20)
    await _receive(communicator, "the second message")
    walk.is_recording = False
    await communicator.disconnect()


async def _receive(communicator: Any, text: str) -> None:
    while text not in await communicator.receive_from(timeout=10):
        pass


def main() -> None:
    """Start the servers, walk, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--show", action="store_true", help="print each switch")
    show = parser.parse_args().show

    import django

    from tests.support.servers import valkey_server

    with valkey_server() as valkey, tempfile.TemporaryDirectory() as folder:
        os.environ["BENCHMARK_REDIS"] = valkey.url
        database = {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{folder}/paths.sqlite3"}
        os.environ["BENCHMARK_DATABASE"] = json.dumps(database)
        os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"
        django.setup()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        enqueued, keyed, reported = Walk(), Walk(), Walk()
        threading.setprofile(reported.note)  # for all threads, which start with the first enqueue
        sys.setprofile(enqueued.note)  # only this thread: the publisher runs in parallel to the call
        trace_enqueue(enqueued)
        sys.setprofile(keyed.note)
        trace_keyed_enqueue(keyed)
        sys.setprofile(reported.note)
        asyncio.run(trace_progress(reported))
    enqueued.up_to(QUEUE).print("enqueue, to the message in Redis", show=False)
    enqueued.print("enqueue, with the receivers of the commit", show=show)
    keyed.up_to(QUEUE).print("enqueue with a lock key and metadata, to the message in Redis", show=False)
    keyed.print("enqueue with a lock key and metadata, with the receivers of the commit", show=show)
    reported.print("progress to websocket", show=show)
    os._exit(0)  # threads of live updates would keep the interpreter running


if __name__ == "__main__":
    main()
