"""The trace context travels from the enqueuing process through the queue into a worker."""

from __future__ import annotations

import pytest

from django_agentexec import get_result
from django_agentexec.telemetry.context import continued
from tests.support.pool_process import pool
from tests.testapp.agents import Text, show_trace

pytest.importorskip("opentelemetry")

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_the_handler_in_a_worker_runs_in_the_trace_of_the_enqueuing_code() -> None:
    with continued(PARENT):
        traced = show_trace.enqueue(Text())
    untraced = show_trace.enqueue(Text())
    with pool("--workers", "1"):
        assert get_result(traced, timeout=60) == PARENT
        assert get_result(untraced, timeout=60) == ""
