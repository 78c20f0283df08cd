"""Limits of a model over eight processes, by the times at which requests arrive at the provider."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest

from django_agentexec.models import Activity, AgentCall, CallKind, Status
from django_agentexec.queues import get_queue
from tests.support.activity_rows import all_ended
from tests.support.model_server import Answer, Call, ModelServer, Request, Tokens
from tests.support.pool_process import pool, until
from tests.testapp.limited import Provider, limited_agent

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("sdk_in_pools"),
]

PROCESSES = 8
CALLS = 3  # of each activity
WINDOW, MARGIN = 3.0, 3.0  # seconds
TOKENS = Tokens(input=30, cached=0, output=60, reasoning=0)  # at most the estimate: 100 of output, and the request
SIZE = TOKENS.input + TOKENS.output
LATENCY = 0.1  # seconds


@dataclass(frozen=True)
class Arrival:
    at: float
    pid: int
    in_progress: int


class RecordingProvider(ModelServer):
    """Answers each conversation by its length, and records when its requests arrive."""

    def __init__(self, refuse: Callable[[int], Answer | None] = lambda number: None) -> None:
        super().__init__([])
        self.arrivals: list[Arrival] = []
        self.refused_at: list[float] = []
        self._refuse = refuse
        self._in_progress = 0
        self._never = threading.Event()

    def answer(self, request: Request) -> tuple[int, Answer]:
        """Record `request`; return its number and the answer."""
        with self._lock:
            self._in_progress += 1
            number = len(self.arrivals)
            self.arrivals.append(Arrival(time.monotonic(), int(request.path.split("/")[2]), self._in_progress))
        self._never.wait(LATENCY)
        with self._lock:
            self._in_progress -= 1
            if refusal := self._refuse(number):
                self.refused_at.append(time.monotonic())
                return number, refusal
        turn = sum(1 for message in request.body["messages"] if message["role"] == "assistant")
        calls = [Call("look_up", {"item": f"{turn}"})] if turn < CALLS - 1 else []
        return number, Answer("" if calls else "All is fine.", calls, TOKENS)


def most_within(arrivals: Sequence[Arrival], seconds: float) -> int:
    """Return the largest number of requests that have arrived within any window."""
    times = sorted(each.at for each in arrivals)
    return max(sum(1 for at in times[n:] if at - start < seconds) for n, start in enumerate(times))


@pytest.fixture
def provider() -> Iterator[RecordingProvider]:
    with RecordingProvider() as running:
        yield running


def check_activities(number: int) -> None:
    rows = list(Activity.objects.all())
    assert [(row.status, row.result, row.retries) for row in rows] == [(Status.COMPLETE, "All is fine.", 0)] * number
    assert AgentCall.objects.filter(kind=CallKind.MODEL, state="done").count() == CALLS * number


@pytest.mark.parametrize("kind", ["requests", "tokens"])
def test_no_window_exceeds_the_limit_though_half_of_the_workers_are_killed(
    provider: RecordingProvider, kind: str
) -> None:
    most = 24
    number = {"rpm": most} if kind == "requests" else {"tpm": most * SIZE}
    limits = {"gpt-test": {**number, "concurrency": 12, "window": WINDOW, "margin": MARGIN}}
    activities = 24
    for _ in range(activities):
        limited_agent.enqueue(Provider(base_url=provider.base_url))

    with pool(
        *("--workers", str(PROCESSES), "--concurrency", "3"),
        MODEL_LIMITS=limits, MODEL_LIMIT_WAIT=2, LEASE=3.0, RECONCILE_INTERVAL=1.0,
    ):  # fmt: skip
        until(lambda: len(provider.arrivals) >= most, "the first window", timeout=120)
        for worker in [each for each in get_queue().workers() if not each.quarantine][: PROCESSES // 2]:
            os.kill(worker.pid, signal.SIGKILL)
        until(all_ended, "the end of all activities", timeout=240)

    check_activities(activities)
    assert most_within(provider.arrivals, WINDOW) <= most
    assert max(each.in_progress for each in provider.arrivals) <= 12
    assert len({each.pid for each in provider.arrivals}) > 1


def test_a_refusal_stops_all_processes() -> None:
    refused, seconds = CALLS * PROCESSES, 8.0
    refusal = Answer(status=429, headers={"Retry-After": f"{seconds:g}"})
    limits = {"gpt-test": {"rpm": 10_000, "window": WINDOW, "margin": MARGIN}}
    activities = 6 * PROCESSES

    with RecordingProvider(lambda number: refusal if number == refused else None) as provider:
        for _ in range(activities):
            limited_agent.enqueue(Provider(base_url=provider.base_url))
        with pool("--workers", str(PROCESSES), "--concurrency", "1", MODEL_LIMITS=limits, MODEL_LIMIT_WAIT=1):
            until(all_ended, "the end of all activities", timeout=240)

    check_activities(activities)
    (refused_at,) = provider.refused_at
    stopped = [each for each in provider.arrivals if refused_at + MARGIN < each.at < refused_at + seconds]
    assert stopped == []
    after = {each.pid for each in provider.arrivals if each.at >= refused_at + seconds}
    assert len(after) > 1
    assert len({each.pid for each in provider.arrivals}) == PROCESSES
