"""Two processes with one Valkey: a model that fails in one is not called by the other, until a probe has succeeded."""

from __future__ import annotations

import json
import subprocess
import sys
from types import TracebackType
from typing import Any, Self

from django_agentexec.queues.redis import RedisQueue
from tests.support.model_server import Answer, ModelServer
from tests.support.servers import Valkey

PROCESS = """
import asyncio, os, sys
import django
django.setup()
from agents import Agent, OpenAIChatCompletionsModel, Runner, set_tracing_disabled
from openai import AsyncOpenAI
from django_agentexec import ResilientModel

set_tracing_disabled(True)

async def main():
    urls = sys.argv[1:]
    clients = [AsyncOpenAI(base_url=url, api_key="test", max_retries=0) for url in urls]
    names = ["big", "small"]
    model = ResilientModel([OpenAIChatCompletionsModel(*each) for each in zip(names, clients)])
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        result = await Runner.run(Agent("Writer", model=model), "Go.")
        print(result.final_output, flush=True)

asyncio.run(main())
"""


class Caller:
    """A process that runs an agent for each line."""

    def __init__(self, *servers: ModelServer) -> None:
        urls = [server.base_url for server in servers]
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROCESS, *urls], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=60)


def end_pause() -> None:
    """Let the pause of every breaker end."""
    client: Any = RedisQueue().client
    for name, text in client.hgetall("agentexec:breakers").items():
        client.hset("agentexec:breakers", name, json.dumps({**json.loads(text), "until": 0}))


def test_the_breaker_opens_in_all_processes_and_closes_again(clean_valkey: Valkey) -> None:
    failing = [Answer(status=500)] * 5
    with (
        ModelServer([*failing, Answer(status=500), Answer("Back."), Answer("Back."), Answer("Back.")]) as big,
        ModelServer([Answer("Fine.")] * 20) as small,
        Caller(big, small) as first,
        Caller(big, small) as second,
    ):
        assert [first.run() for _ in range(3)] == ["Fine."] * 3
        assert [second.run() for _ in range(2)] == ["Fine."] * 2
        assert len(big.requests) == 5

        assert [first.run(), second.run(), first.run(), second.run()] == ["Fine."] * 4
        assert len(big.requests) == 5, "the breaker is open in both processes"

        end_pause()
        assert [second.run(), first.run()] == ["Fine."] * 2
        assert len(big.requests) == 6, "the probe has failed, and the breaker is open again"

        end_pause()
        assert [first.run(), second.run(), first.run()] == ["Back."] * 3
        assert len(big.requests) == 9
