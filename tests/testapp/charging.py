"""A task with an idempotent tool whose execution tests hold, or whose process dies in it."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from uuid import UUID

from django_agentexec import idempotent_tool, task
from django_agentexec.policy import TenantPolicy

from .work import Work, note

POLICY = f"{__name__}.OrganizationPolicy"


class OrganizationPolicy(TenantPolicy):
    """A policy with tenants."""

    keys = ["organization_id"]


@task("charge", max_retries=0)
async def charge(agent_id: UUID, context: Work) -> int:
    """Charge a tenant. `name` is a folder: the charge ends when it has `gate`; with `dies`, the first process dies."""
    folder = Path(context.name)

    @idempotent_tool(ttl=600, scope="tenant", key="charge")
    async def pay(order: int) -> int:
        note(context.journal, "charged", str(order), agent_id)
        if (folder / "dies").exists():
            (folder / "dies").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        while not (folder / "gate").exists():  # noqa: ASYNC110  # another process creates it
            await asyncio.sleep(0.02)
        return os.getpid()

    note(context.journal, "start", context.key, agent_id)
    return await pay(1)
