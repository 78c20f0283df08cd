"""The entry point of a worker process: signals, event loop, exit code."""

from __future__ import annotations

import asyncio
import gc
import logging
import multiprocessing
import os
import signal
import sys
from functools import partial
from multiprocessing.connection import Connection

import django
from django.apps import apps
from django.db import connections

from .critical_threads import EXIT_DEFECT
from .options import WorkerOptions

logger = logging.getLogger(__name__)

SWITCH_INTERVAL = 0.0005  # seconds; a tenth of Python's default
# Allocations between two collections of young objects, instead of 700: a hundred activities in flight have more that
# is about to be freed by itself.
YOUNG_OBJECTS = 20_000
SIGN_BEAT = b"."
SIGN_NEEDS_REFILL = b"r"
EXIT_DRAINED = 0
EXIT_RECYCLED = 64  # ended by its limit of tasks or memory; the pool starts the next one at once


def run_worker(options: WorkerOptions, pipe: Connection) -> None:
    """Be a worker process, to its end; runs in the new process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # The threads of Redis and database wait for the interpreter's lock after each answer.
    sys.setswitchinterval(SWITCH_INTERVAL)
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])
    if not apps.ready:
        django.setup()
    from .logs import configure_logging
    from .subprocesses import enable_multiprocessing, end_subprocesses

    configure_logging(options.log_level)
    enable_multiprocessing()
    # Not closed, and no normal exit: both would wait for threads of sync handlers that ignore their cancellation.
    runner = asyncio.Runner(loop_factory=_loop_factory())
    try:
        code = runner.run(_work(options, pipe))
    except BaseException:  # also a SystemExit that escapes from a task which a handler has created
        logger.exception("The worker process failed.")
        code = EXIT_DEFECT
    end_subprocesses()
    logging.shutdown()
    os._exit(code)


async def _work(options: WorkerOptions, pipe: Connection) -> int:
    from ..queues import get_queue
    from .worker import Worker, install_signals

    def tell(sign: bytes, *_: object) -> None:
        try:
            pipe.send_bytes(sign)
        except OSError:
            loop.call_soon_threadsafe(worker.drain)  # the pool is gone

    def make_worker() -> Worker:
        beat, needs_refill = partial(tell, SIGN_BEAT), partial(tell, SIGN_NEEDS_REFILL)
        try:
            return Worker(get_queue(), options, beat=beat, needs_refill=needs_refill)
        finally:
            connections.close_all()

    loop = asyncio.get_running_loop()
    worker = await asyncio.to_thread(make_worker)
    install_signals(loop, worker)
    pool = multiprocessing.parent_process()
    if pool is not None:
        # A pool that was killed cannot say stop: its end closes this pipe.
        loop.add_reader(pool.sentinel, _pool_is_gone, loop, pool.sentinel, worker)
    await worker.run()
    return EXIT_RECYCLED if worker.reached_limit else EXIT_DRAINED


def _pool_is_gone(loop: asyncio.AbstractEventLoop, sentinel: int, worker: object) -> None:
    from .worker import Worker

    assert isinstance(worker, Worker)
    logger.warning("The pool is gone; finishing what runs, then ending.")
    loop.remove_reader(sentinel)
    worker.drain()


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    """Return uvloop's loop where it is installed."""
    try:
        import uvloop
    except ImportError:
        return None
    loop: type[asyncio.AbstractEventLoop] = uvloop.Loop
    return loop
