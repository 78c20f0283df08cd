"""`idempotent_tool`: the first result again within a run, conversation or tenant, also under concurrency."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from agents import Agent, RunContextWrapper, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call
from asgiref.sync import sync_to_async
from django.db import connection
from django.test import override_settings
from django.utils import timezone
from pydantic import BaseModel

from django_agentexec import InvalidOption, OpenAIRunner, activity, idempotent_tool, task
from django_agentexec.models import Activity, AgentCall, CallKind, Conversation, Status, ToolResult
from django_agentexec.policy import TenantPolicy
from django_agentexec.resilience import idempotency
from django_agentexec.resilience.idempotency import prune_results
from django_agentexec.tasks import registry
from django_agentexec.testing import drain, make_attempt, memory_queue

pytestmark = pytest.mark.django_db(transaction=True)

DONE: Counter[str] = Counter()
MEMORY = {"QUEUE_BACKEND": "django_agentexec.queues.memory.MemoryQueue"}


class Empty(BaseModel):
    order: int = 1


class Ticket(BaseModel):
    number: int
    due: timedelta = timedelta(days=1)


class Tenants(TenantPolicy):
    keys = ["org"]


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    DONE.clear()
    with memory_queue():
        yield


def charge_tool(scope: str = "run", ttl: float = 60, **options: Any) -> Any:
    @idempotent_tool(ttl=ttl, scope=scope, **options)
    async def charge(order: int, currency: str = "EUR") -> str:
        """Charge an order."""
        DONE[f"charge {order} {currency}"] += 1
        return f"receipt {sum(DONE.values())}"

    return charge


def plain(function: Callable[..., Any], **options: Any) -> Callable[..., Activity]:
    """Return a function that enqueues a handler which calls `function`, runs it, and returns its row."""

    async def handler(agent_id: UUID, context: Empty) -> Any:
        return await function(context.order)

    definition = task("plain", max_retries=0, **options)(handler)

    def run(order: int = 1, **values: Any) -> Activity:
        agent_id = definition.enqueue(Empty(order=order), **values).agent_id
        drain()
        return Activity.objects.get(agent_id=agent_id)

    return run


def outputs(*rows: Activity) -> list[Any]:
    assert [row.error for row in rows if row.status != Status.COMPLETE] == []
    return [row.result for row in rows]


def test_two_tool_calls_of_a_run_with_the_same_arguments_execute_once() -> None:
    calls = [function_call("charge", {"order": order}, call_id=str(n)) for n, order in enumerate((1, 1, 2))]
    model = ScriptedModel([calls[:2], calls[2:], [assistant_message("Done.")]])

    async def handler(agent_id: UUID, context: Empty) -> str:
        agent = Agent("Clerk", model=model, tools=[function_tool(charge_tool())])
        return str((await OpenAIRunner(agent_id).run(agent, "Charge.")).final_output)

    task("clerk")(handler).enqueue(Empty())
    drain()

    assert Activity.objects.get().status == Status.COMPLETE
    assert DONE == {"charge 1 EUR": 1, "charge 2 EUR": 1}
    rows = AgentCall.objects.filter(kind=CallKind.TOOL).order_by("call_id")
    assert [row.output for row in rows] == ["receipt 1", "receipt 1", "receipt 2"]
    assert sorted(row.is_cached for row in rows) == [False, False, True]


def test_a_tool_has_the_description_and_parameters_of_its_function() -> None:
    tool = function_tool(charge_tool())

    assert (tool.name, tool.description) == ("charge", "Charge an order.")
    assert set(tool.params_json_schema["properties"]) == {"order", "currency"}


def test_later_attempts_of_a_run_get_the_first_result() -> None:
    charge, attempts = charge_tool(), list[str]()

    async def handler(agent_id: UUID, context: Empty) -> list[str]:
        attempts.append(await charge(order=1))
        if len(attempts) == 1:
            raise ConnectionError("after the charge")
        return attempts

    task("plain", max_retries=1, backoff=lambda *_: 0.0)(handler).enqueue(Empty())
    drain()

    assert Activity.objects.get().result == ["receipt 1", "receipt 1"]


def test_runs_share_nothing_by_default() -> None:
    run = plain(charge_tool())

    assert outputs(run(), run()) == ["receipt 1", "receipt 2"]


@override_settings(AGENTEXEC={**MEMORY, "POLICY": Tenants})
def test_a_session_id_that_another_tenant_uses_again_has_no_results_of_the_former_tenant() -> None:
    run = plain(charge_tool("conversation"))

    first = run(conversation="a", metadata={"org": 1})
    Conversation.objects.all().delete()
    same, other = run(conversation="a", metadata={"org": "1"}), run(conversation="a", metadata={"org": 2})

    assert outputs(first, same, other) == ["receipt 1", "receipt 1", "receipt 2"]


def test_turns_of_a_conversation_share_results() -> None:
    run = plain(charge_tool("conversation"))

    first, second, other = run(conversation="a"), run(conversation="a"), run(conversation="b")
    assert outputs(first, second, other) == ["receipt 1", "receipt 1", "receipt 2"]


@override_settings(AGENTEXEC={**MEMORY, "POLICY": Tenants})
def test_activities_of_a_tenant_share_results_and_others_do_not() -> None:
    run = plain(charge_tool("tenant"))

    rows = [run(metadata={"org": org, "n": n}) for n, org in enumerate(("a", "b", "a"))]
    assert outputs(*rows) == ["receipt 1", "receipt 2", "receipt 1"]
    assert "belongs to no tenant" in run().error


def test_a_scope_that_does_not_exist_is_refused_before_the_call() -> None:
    assert "the policy has no tenants" in plain(charge_tool("tenant"))().error
    registry.unregister("plain")
    assert "has no conversation" in plain(charge_tool("conversation"))().error
    assert DONE == {}


@override_settings(AGENTEXEC={**MEMORY, "POLICY": Tenants})
def test_other_arguments_and_defaults_are_told_apart() -> None:
    charge = charge_tool("tenant")

    async def both(order: int) -> list[str]:
        return [await charge(order), await charge(order=order, currency="EUR"), await charge(order, "USD")]

    assert outputs(plain(both)(metadata={"org": "a"})) == [["receipt 1", "receipt 1", "receipt 2"]]


@override_settings(AGENTEXEC={**MEMORY, "POLICY": Tenants})
def test_results_expire_and_are_pruned() -> None:
    run = plain(charge_tool("tenant"))
    run(metadata={"org": "a"})
    ToolResult.objects.update(expires_at=timezone.now() - timedelta(seconds=1))

    assert outputs(run(metadata={"org": "a"})) == ["receipt 2"]
    assert prune_results() == 0
    ToolResult.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert (prune_results(), ToolResult.objects.count()) == (1, 0)


def test_a_call_that_raises_is_made_again() -> None:
    @idempotent_tool(ttl=60)
    async def charge(order: int) -> str:
        DONE["charge"] += 1
        if DONE["charge"] == 1:
            raise ConnectionError("declined")
        return "receipt"

    async def twice(order: int) -> str:
        with pytest.raises(ConnectionError):
            await charge(order)
        return await charge(order)

    assert outputs(plain(twice)()) == ["receipt"]


def test_of_concurrent_calls_one_executes_and_the_other_waits() -> None:
    started = asyncio.Event()

    @idempotent_tool(ttl=60)
    async def charge(order: int) -> str:
        DONE["charge"] += 1
        started.set()
        for _ in range(50):  # the other call looks for the result meanwhile
            await asyncio.sleep(0)
        return f"receipt {DONE['charge']}"

    async def both(order: int) -> list[str]:
        first = asyncio.ensure_future(charge(order))
        await started.wait()
        return [await charge(order), await first]

    assert outputs(plain(both)()) == [["receipt 1", "receipt 1"]]


def foreign_call(place: str, **values: Any) -> ToolResult:
    """Return the row of a call that another worker makes now."""
    owner = Activity.objects.get(agent_id=activity.create("other"))
    Activity.objects.filter(pk=owner.pk).update(status=Status.RUNNING, fence=7)
    defaults = {"fence": 7, "token": uuid4(), "expires_at": timezone.now() + timedelta(days=1)}
    return ToolResult.objects.create(key=place, tool="charge", agent_id=owner.agent_id, **{**defaults, **values})


def other_ends_at_third_look(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let the call of another worker end at the third look at it; return the pauses between the looks."""
    looks: list[float] = []

    async def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            await sync_to_async(ToolResult.objects.update)(is_done=True, output="the other's receipt")

    monkeypatch.setattr(idempotency, "_sleep", sleep)
    return looks


@override_settings(AGENTEXEC={**MEMORY, "POLICY": Tenants})
def test_a_call_waits_for_that_of_another_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    run = plain(charge_tool("tenant"))
    monkeypatch.setattr(idempotency, "digest_of", lambda *values: "place")
    foreign_call("place")
    looks = other_ends_at_third_look(monkeypatch)

    assert outputs(run(metadata={"org": "a"})) == ["the other's receipt"]
    assert looks == [0.05, 0.1, 0.2]
    assert DONE == {}


@pytest.mark.parametrize("change", [{"fence": 8}, {"status": Status.QUEUED}, {"status": Status.ERROR}])
@override_settings(AGENTEXEC={**MEMORY, "POLICY": Tenants})
def test_a_call_whose_worker_has_died_is_made_again(monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]) -> None:
    run = plain(charge_tool("tenant"))
    monkeypatch.setattr(idempotency, "digest_of", lambda *values: "place")
    foreign = foreign_call("place")
    Activity.objects.filter(agent_id=foreign.agent_id).update(**change)

    assert outputs(run(metadata={"org": "a"})) == ["receipt 1"]
    assert ToolResult.objects.get().token != foreign.token


@override_settings(AGENTEXEC={**MEMORY, "POLICY": Tenants})
def test_a_call_that_begins_at_the_same_moment_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another worker inserts its row between the look and the insert of this call."""
    run = plain(charge_tool("tenant"))
    monkeypatch.setattr(idempotency, "digest_of", lambda *values: "place")
    looks = other_ends_at_third_look(monkeypatch)
    left = ["place"]

    def race(execute: Any, sql: str, *args: Any) -> Any:
        found = execute(sql, *args)
        if left and sql.startswith("SELECT") and ToolResult._meta.db_table in sql:
            foreign_call(left.pop())
        return found

    with connection.execute_wrapper(race):
        assert outputs(run(metadata={"org": "a"})) == ["the other's receipt"]
    assert len(looks) == 3
    assert DONE == {}


@pytest.mark.parametrize("fails", [False, True])
def test_a_result_that_arrives_after_the_claim_is_lost_is_not_stored(fails: bool) -> None:
    other = uuid4()

    @idempotent_tool(ttl=60)
    async def late(order: int) -> str:
        await sync_to_async(ToolResult.objects.update)(token=other)  # another worker has taken the claim over
        if fails:
            raise ConnectionError("no")
        return "late"

    plain(late)()

    row = ToolResult.objects.get()
    assert (row.token, row.is_done, row.output) == (other, False, None)


def test_results_have_the_annotated_type_again() -> None:
    @idempotent_tool(ttl=60)
    def open_ticket(title: str) -> Ticket:
        DONE["ticket"] += 1
        return Ticket(number=DONE["ticket"])

    async def twice(order: int) -> bool:
        first, second = await open_ticket("a"), await open_ticket("a")
        return first == second == Ticket(number=1)

    assert outputs(plain(twice)()) == [True]


def test_the_context_object_of_the_sdk_is_no_argument() -> None:
    @idempotent_tool(ttl=60)
    async def charge(context: RunContextWrapper[Any], order: int) -> str:
        DONE["charge"] += 1
        return "receipt"

    async def twice(order: int) -> None:
        for number in range(2):
            await charge(RunContextWrapper(number), order)

    outputs(plain(twice)())
    assert DONE["charge"] == 1


async def test_outside_of_a_worker_it_is_a_plain_call() -> None:
    charge = charge_tool("tenant")

    assert [await charge(1), await charge(1)] == ["receipt 1", "receipt 2"]
    assert make_attempt() is not None
    assert await ToolResult.objects.acount() == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ttl": 0}, r"idempotent_tool\(ttl=0\)"),
        ({"ttl": "1h"}, r"idempotent_tool\(ttl='1h'\)"),
        ({"ttl": 1, "scope": "user"}, "must be one of 'run', 'conversation', 'tenant'"),
        ({"ttl": 1, "key": ""}, r"idempotent_tool\(key=''\)"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        idempotent_tool(**options)


def test_it_is_written_below_function_tool() -> None:
    with pytest.raises(InvalidOption, match="first @function_tool, then @idempotent_tool"):
        idempotent_tool(ttl=1)(function_tool(lambda: "", name_override="x"))  # type: ignore[arg-type]
