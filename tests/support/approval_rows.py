"""Helpers for tests of approvals: activities that wait for a decision, without a run."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.utils import timezone

from django_agentexec.models import Approval
from tests.support.activity_rows import start, suspend
from tests.testapp.agents import Text, shout


def waiting(
    *calls: dict[str, Any], metadata: dict[str, Any] | None = None, seconds: float | None = None
) -> list[Approval]:
    """Return the approvals that a new activity waits for; by default a call of the tool `send_letter`."""
    agent_id = shout.enqueue(Text(), metadata=metadata or {}).agent_id
    fence = start(agent_id).fence
    requests = [
        Approval(
            activity_id=agent_id,
            call_id=str(number),
            agent="Clerk",
            expires_at=timezone.now() + timedelta(seconds=seconds) if seconds else None,
            **{"tool": "send_letter", "arguments": {"to": "Acme"}, **fields},
        )
        for number, fields in enumerate(calls or ({},))
    ]
    suspend(agent_id, fence, requests=requests, new_requests=requests)
    return requests
