"""Tasks that wait for money or for a provider, for tests of budgets."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from django.utils import timezone

from django_agentexec import Attempt, task
from django_agentexec.models import WaitingFor

from .work import Work, note


@task("paid_work", max_retries=2, backoff=lambda *_: 0.0)
async def paid_work(agent_id: UUID, context: Work, attempt: Attempt) -> str:
    """Run an agent whose calls cost 0.03 dollars each; the key is the number of its steps."""
    # Here, not above: the other tests' pools need not load the SDK.
    from django_agentexec import OpenAIRunner

    from .paid_agent import paid_agent

    note(context.journal, "start", context.name, agent_id)
    steps = int(context.key or 3)
    result = await OpenAIRunner(agent_id).run(paid_agent(context, agent_id, steps), "Go.", max_turns=steps + 2)
    return str(result.final_output)


@task("limited_work", max_retries=0)
async def limited_work(agent_id: UUID, context: Work, attempt: Attempt) -> str:
    """Wait for the limit of a provider once, for a second."""
    note(context.journal, "start", context.name, agent_id)

    def one_second_later() -> str:
        return (timezone.now() + timedelta(seconds=1)).isoformat()

    due = await attempt.aonce("due", one_second_later)
    if timezone.now() < datetime.fromisoformat(due):
        raise attempt.suspend_until(WaitingFor.LIMIT, datetime.fromisoformat(due))
    return "done"
