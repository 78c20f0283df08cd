"""The entry point of a worker process: signals, event loop, exit code."""

from __future__ import annotations

import asyncio
import gc
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection

import django
from django.apps import apps

from ..background import EXIT_DEFECT
from .options import WorkerOptions

logger = logging.getLogger(__name__)

SWITCH_INTERVAL = 0.0005  # seconds; a tenth of Python's default
# Allocations between two collections of young objects, instead of Python's 700 or 2,000: a hundred running activities
# hold more objects than that, which reference counting frees soon.
YOUNG_OBJECTS = 20_000
SIGN_BEAT = b"."
SIGN_NEEDS_RECOVERY = b"r"
EXIT_DRAINED = 0
EXIT_RECYCLED = 64  # ended by its limit of tasks or memory; the pool replaces it at once


def run_worker(options: WorkerOptions, pipe: Connection) -> None:
    """Run a worker until it ends, then exit; called in the new process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # The threads for Redis and the database wait for the interpreter lock after each reply.
    sys.setswitchinterval(SWITCH_INTERVAL)
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])
    if not apps.ready:
        django.setup()
    from ..logs import configure_logging
    from .subprocesses import enable_multiprocessing, end_subprocesses

    configure_logging(options.log_level)
    enable_multiprocessing()
    # The runner is not closed, and the exit is abrupt: both would wait for sync handlers that ignore cancellation.
    runner = asyncio.Runner(loop_factory=loop_factory())
    try:
        code = runner.run(_work(options, pipe))
    except BaseException:  # including a SystemExit of a task that a handler has created
        logger.exception("The worker process failed.")
        code = EXIT_DEFECT
    end_subprocesses()
    logging.shutdown()
    os._exit(code)


async def _work(options: WorkerOptions, pipe: Connection) -> int:
    from .worker import create_worker, install_signals

    def send(sign: bytes, *_: object) -> None:
        try:
            pipe.send_bytes(sign)
        except OSError:
            loop.call_soon_threadsafe(worker.drain)  # the pool has ended

    loop = asyncio.get_running_loop()
    beat, needs_recovery = partial(send, SIGN_BEAT), partial(send, SIGN_NEEDS_RECOVERY)
    worker = await create_worker(options, beat=beat, needs_recovery=needs_recovery)
    install_signals(loop, worker)
    pool = multiprocessing.parent_process()
    if pool is not None:
        # A killed pool cannot send a signal: its end makes the sentinel readable.
        loop.add_reader(pool.sentinel, _on_pool_exit, loop, pool.sentinel, worker.drain)
    await worker.run()
    return EXIT_RECYCLED if worker.reached_limit else EXIT_DRAINED


def _on_pool_exit(loop: asyncio.AbstractEventLoop, sentinel: int, drain: Callable[[], None]) -> None:
    logger.warning("The pool process has ended; draining.")
    loop.remove_reader(sentinel)
    drain()


def loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    """Return the event loop of uvloop if it is installed."""
    try:
        import uvloop
    except ImportError:
        return None
    loop: type[asyncio.AbstractEventLoop] = uvloop.Loop
    return loop
