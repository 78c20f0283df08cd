"""The tasks of `benchmarks.durable`: runs with a model in this process, so that only the SDK and the recording cost."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

from agents import Agent, Model, function_tool
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseUsage,
)
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails
from pydantic import BaseModel

from django_agentexec import Attempt, OpenAIRunner, task


class Pairs(BaseModel):
    pairs: int
    turns: int
    with_tools: bool


class Long(BaseModel):
    turns: int
    size: int
    """Characters of each tool output."""


class Chatty(Model):
    """A model that makes a call in each turn but the last: of these functions, in turn."""

    def __init__(self, turns: int, *functions: str) -> None:
        self.turns = turns
        self.functions = functions
        self.requests = 0

    async def get_response(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        self.requests += 1
        response = Response.model_construct(
            id=f"r{self.requests}",
            output=[self._item(self.requests)],
            usage=ResponseUsage(
                input_tokens=100,
                output_tokens=20,
                total_tokens=120,
                input_tokens_details=InputTokensDetails.model_construct(cached_tokens=0, cache_write_tokens=0),
                output_tokens_details=OutputTokensDetails(reasoning_tokens=0),
            ),
        )
        yield ResponseCompletedEvent.model_construct(type="response.completed", response=response, sequence_number=0)

    def _item(self, turn: int) -> Any:
        if turn < self.turns:
            name = self.functions[turn % len(self.functions)]
            return ResponseFunctionToolCall(type="function_call", name=name, call_id=f"call_{turn}", arguments="{}")
        text = ResponseOutputText(type="output_text", text="Done.", annotations=[])
        return ResponseOutputMessage(id="m", type="message", role="assistant", status="completed", content=[text])


def _agent(turns: int, size: int) -> Agent[Any]:
    @function_tool
    async def read() -> str:
        """Read a document."""
        return "x" * size

    return Agent("Reader", model=Chatty(turns, "read"), tools=[read])


def _handing_off(turns: int) -> Agent[Any]:
    """Return an agent that hands off to another agent and back, so that its run has calls of its model only."""
    model = Chatty(turns, "transfer_to_alpha", "transfer_to_beta")
    alpha, beta = Agent("alpha", model=model), Agent("beta", model=model)
    alpha.handoffs, beta.handoffs = [beta], [alpha]
    return alpha


@task("durable_pairs", max_retries=0)
async def durable_pairs(agent_id: UUID, context: Pairs) -> list[float]:
    """Return the CPU seconds per turn that recording adds, of each pair of runs, one of which is recorded.

    A turn is a call of a model and, with tools, of a tool. All threads of the process count.
    """
    runners = [OpenAIRunner(agent_id, durable=durable) for durable in (False, True)]
    differences = []
    for number in range(context.pairs + 2):
        costs = []
        for runner in runners if number % 2 else reversed(runners):
            started = time.process_time()
            agent = _agent(context.turns, 100) if context.with_tools else _handing_off(context.turns)
            await runner.run(agent, f"Pair {number}", max_turns=context.turns + 1)
            costs.append((time.process_time() - started) / context.turns)
        plain, recorded = costs if number % 2 else reversed(costs)
        if number >= 2:  # the first pairs fill caches
            differences.append(recorded - plain)
    return differences


@task("durable_long", max_retries=1, backoff=lambda *_: 0.0)
async def durable_long(agent_id: UUID, context: Long, attempt: Attempt) -> float:
    """Run many turns, fail, and return the seconds that the next attempt needs to replay them."""
    started = time.perf_counter()
    agent = _agent(context.turns, context.size)
    await OpenAIRunner(agent_id).run(agent, "Read all.", max_turns=context.turns + 1)
    if attempt.number == 1:
        raise ConnectionError("after the last turn")
    assert isinstance(agent.model, Chatty)
    assert agent.model.requests == 0
    return time.perf_counter() - started
