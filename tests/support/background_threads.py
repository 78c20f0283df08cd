"""The threads of this process that write in batches, and so after the test whose work they write."""

from __future__ import annotations

from django_agentexec import activity
from django_agentexec.limits.bookkeeping import bookkeeping
from django_agentexec.live.publisher import publisher
from django_agentexec.monitoring.metrics import counting
from django_agentexec.telemetry.spans import spans

PATIENCE = 5.0  # seconds


def settle() -> None:
    """Let these threads finish what the code before has left to them."""
    activity.flush_stream(PATIENCE)
    for thread in (publisher, bookkeeping, spans):
        thread.flush(PATIENCE)
    counting.flush()
