"""The injection of faults into a stage, each in its own thread, so that they may overlap; the observer records each."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from redis import Redis
from redis.exceptions import RedisError

from tests.chaos.faults import Fault
from tests.chaos.observer import report
from tests.chaos.proxy import Proxy
from tests.chaos.stage import Pool, Stage, send

EVERYWHERE = 0.8  # a victim above it means all places at once


class Strikes:
    """The past and current faults of a run."""

    def __init__(self, stage: Stage) -> None:
        self.happened: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        """Faults whose victim did not exist or was being replaced."""
        self.errors: list[str] = []
        self._stage = stage
        self._healing = threading.Event()
        self._threads: list[threading.Thread] = []

    def strike(self, fault: Fault) -> None:
        """Begin a fault, which ends after its duration."""
        thread = threading.Thread(target=self._strike, args=[fault], name=f"chaos-{fault.kind}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def heal(self) -> None:
        """End every fault now, and wait until all effects are undone."""
        self._healing.set()
        for thread in self._threads:
            thread.join()
        for proxies in self._stage.places():
            for proxy in proxies.values():
                proxy.heal()

    def _strike(self, fault: Fault) -> None:
        since = time.monotonic()
        try:
            hit = getattr(self, f"_{fault.kind}")(fault)
        except Exception as error:
            self.errors.append(f"The fault {fault} failed: {error!r}")
            return
        if hit is None:
            self.skipped[fault.kind] += 1
            return
        self.happened[fault.kind] += 1
        report("fault", at=since, detail=json.dumps({**fault.as_dict(), **hit, "until": time.monotonic()}))

    def _last(self, seconds: float) -> None:
        self._healing.wait(seconds)

    # Processes

    def _kill_worker(self, fault: Fault) -> dict[str, object] | None:
        pid = self._worker(fault)
        return {"pid": pid} if pid and send(pid, signal.SIGKILL) else None

    def _freeze_worker(self, fault: Fault) -> dict[str, object] | None:
        pid = self._worker(fault)
        if not pid or not send(pid, signal.SIGSTOP):
            return None
        self._last(fault.seconds)
        send(pid, signal.SIGCONT)
        return {"pid": pid}

    def _freeze_pool(self, fault: Fault) -> dict[str, object] | None:
        with self._pool(fault) as pool:
            if pool is None:
                return None
            assert pool.process is not None
            send(pool.process.pid, signal.SIGSTOP)
            self._last(fault.seconds)
            send(pool.process.pid, signal.SIGCONT)
            return {"pid": pool.process.pid, "number": pool.number}

    def _kill_pool(self, fault: Fault) -> dict[str, object] | None:
        with self._pool(fault) as pool:
            if pool is None:
                return None
            pool.kill()
            pool.start(fault.clock)
            return {"number": pool.number}

    def _deploy(self, fault: Fault) -> dict[str, object] | None:
        with self._pool(fault) as pool:
            if pool is None:
                return None
            pool.stop()
            pool.start(fault.clock)
            return {"number": pool.number}

    def _worker(self, fault: Fault) -> int:
        workers = self._stage.workers()
        return workers[int(fault.victim * len(workers))] if workers else 0

    @contextmanager
    def _pool(self, fault: Fault) -> Iterator[Pool | None]:
        pool = self._stage.pools[int(fault.victim * len(self._stage.pools))]
        with _if_free(pool.lock) as is_free:
            yield pool if is_free else None

    # Servers

    def _kill_valkey(self, fault: Fault) -> dict[str, object] | None:
        with _if_free(self._stage.valkey_lock) as is_free:
            if not is_free:
                return None
            self._stage.valkey.kill()
            self._last(fault.seconds)
            self._stage.valkey.start()
            return {}

    def _flush(self, fault: Fault) -> dict[str, object] | None:
        with _if_free(self._stage.valkey_lock) as is_free:
            if not is_free:
                return None
            try:
                with Redis(unix_socket_path=str(self._stage.valkey.socket)) as client:
                    client.flushall()
            except RedisError:
                return None
            return {}

    def _restart_database(self, fault: Fault) -> dict[str, object] | None:
        with _if_free(self._stage.database_lock) as is_free:
            if not is_free or self._stage.postgresql is None:
                return None
            self._stage.postgresql.restart(fault.choice)
            return {}

    # The network

    def _network(self, fault: Fault) -> dict[str, object] | None:
        mode, what = fault.choice.split(":")
        places = self._stage.places()
        if fault.victim < EVERYWHERE:
            numbers = [int(fault.victim / EVERYWHERE * len(places))]
        else:
            numbers = list(range(len(places)))
        proxies = [proxy for number in numbers for name, proxy in places[number].items() if what in (name, "both")]
        for proxy in proxies:
            _disturb(proxy, mode, fault.seconds)
        self._last(fault.seconds)
        for proxy in proxies:
            proxy.heal(forget=mode == "half_open_forget")
        return {"places": numbers}


def _disturb(proxy: Proxy, mode: str, seconds: float) -> None:
    match mode:
        case "cut":
            proxy.cut()
        case "delay":
            proxy.delay(min(0.2, seconds / 10))
        case "reset":
            proxy.reset()
        case _:
            proxy.half_open()


@contextmanager
def _if_free(lock: threading.Lock) -> Iterator[bool]:
    is_free = lock.acquire(blocking=False)
    try:
        yield is_free
    finally:
        if is_free:
            lock.release()
