"""Activities with recorded calls: an agent that looks names up, run by a worker, and rows without a run."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from agents import Agent, function_tool
from agents.testing import ScriptedModel
from django.utils import timezone

from django_agentexec import OpenAIRunner, task
from django_agentexec.activity.store import apply_one
from django_agentexec.calls.operations import BeginCall, FinishCall
from django_agentexec.models import Activity, AgentCall, CallKind, CallState
from django_agentexec.testing import drain
from tests.support.contexts import Empty
from tests.support.durable_agents import DONE, TASK
from tests.support.scripted_models import call, say


@function_tool
def look_up(name: str) -> str:
    """Look a name up."""
    DONE[name] += 1
    return f"{name} is fine"


@function_tool
def explode(name: str) -> str:
    """Fail."""
    raise ConnectionError("password=hunter2")


def clerk(scripted: ScriptedModel, *, fails: int = 0, **options: Any) -> Any:
    """Register the task of an agent that answers with `scripted`, and fails after its first `fails` runs."""

    async def handler(agent_id: UUID, context: Empty) -> str:
        agent = Agent("Clerk", model=scripted, tools=[look_up, explode])
        result = await OpenAIRunner(agent_id).run(agent, "Check them.")
        DONE["runs"] += 1
        if DONE["runs"] <= fails:
            raise ConnectionError("the database of org-9 is down")
        return str(result.final_output)

    return task(TASK, backoff=lambda *_: 0.0, **{"max_retries": 0, **options})(handler)


def run(scripted: ScriptedModel, *, fails: int = 0, **metadata: Any) -> Activity:
    """Run the clerk's task to its end."""
    agent_id = clerk(scripted, fails=fails).enqueue(Empty(), metadata=metadata).agent_id
    drain()
    return Activity.objects.get(pk=agent_id)


def two_look_ups() -> ScriptedModel:
    """Return a model that looks up two names, one after the other, and answers."""
    return ScriptedModel(
        [[call("look_up", "1", name="Acme")], [call("look_up", "2", name="Beta")], say("Both are fine.")]
    )


def add_call(
    row: Activity, kind: CallKind, *, since: datetime | None = None, seconds: float = 1.0, **values: Any
) -> AgentCall:
    """Add a call that took so many seconds, without a run."""
    started = since or timezone.now()
    defaults = {"state": CallState.DONE, "attempt": row.attempt, "fence": row.fence, "started_at": started}
    defaults["finished_at"] = None if values.get("state") == CallState.STARTED else started + timedelta(seconds=seconds)
    return AgentCall.objects.create(activity_id=row.agent_id, kind=kind, **{**defaults, **values})


def begin_call(agent_id: UUID, fence: int = 1, **values: Any) -> AgentCall:
    """Begin a tool call in an attempt, as its journal does."""
    call = AgentCall(activity_id=agent_id, kind=CallKind.TOOL, fence=fence, **values)
    apply_one(BeginCall(agent_id=agent_id, fence=fence, new=[call]))
    return call


def finish_call(call: AgentCall, state: CallState = CallState.DONE, **values: Any) -> None:
    """End that call."""
    call.state, call.finished_at = state, timezone.now()
    for name, value in values.items():
        setattr(call, name, value)
    apply_one(FinishCall(agent_id=call.activity_id, fence=call.fence, changed=[call]))
