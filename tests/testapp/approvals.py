"""An agent whose tool needs an approval, for tests with real processes."""

from __future__ import annotations

from uuid import UUID

from django_agentexec import task

from .work import Work, note


@task("approved_work", max_retries=2, backoff=lambda *_: 0.0)
async def approved_work(agent_id: UUID, context: Work) -> str:
    # Here, not above: the other tests' pools need not load the SDK.
    from django_agentexec import OpenAIRunner

    from .approval_agent import clerk

    note(context.journal, "start", context.name, agent_id)
    return str((await OpenAIRunner(agent_id).run(clerk(context, agent_id), "Write to Acme.")).final_output)
