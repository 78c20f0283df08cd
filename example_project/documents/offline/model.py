"""The model itself: the SDK's interface around the planners."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import AsyncIterator
from typing import Any

from agents import Model, ModelBehaviorError, Usage
from agents.items import TResponseOutputItem, TResponseStreamEvent
from agents.testing import ModelCall, ModelStep, ScriptedModel, assistant_message, function_call
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails
from pydantic import BaseModel

from . import letter, portfolio, research, review
from .conversation import Conversation, Planner, Turn

PLANNERS: dict[str, Planner] = {
    "CompanyBrief": research,
    "ContractReview": review,
    "Letter": letter,
    "Candidates": portfolio.Scout(),
    "PortfolioReport": portfolio.Editor(),
}
PAUSE = (0.6, 1.4)  # seconds a turn takes at least and at most, so that progress is visible
CHARACTERS_PER_TOKEN = 4


class OfflineModel(Model):
    """Language model by rules. The same conversation always gets the same turn.

    `pause` is the least and the largest number of seconds a turn takes. It can produce the output types
    of `PLANNERS` only; for others it raises `ModelBehaviorError`.
    """

    def __init__(self, pause: tuple[float, float] = PAUSE) -> None:
        self.pause = pause

    async def get_response(self, *args: Any, **kwargs: Any) -> Any:
        """Return the next turn; arguments as in `agents.Model.get_response`."""
        return await self._one_turn().get_response(*args, **kwargs)

    def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[TResponseStreamEvent]:
        """Stream the next turn; arguments as in `agents.Model.stream_response`."""
        return self._one_turn().stream_response(*args, **kwargs)

    def _one_turn(self) -> ScriptedModel:
        # The SDK's scripted model returns a turn as a response and as a stream of events. The script is one
        # turn, which depends on the conversation.
        return ScriptedModel([ModelStep.respond(self._respond)])

    async def _respond(self, call: ModelCall) -> ModelStep:
        output_type = call.output_schema.name() if call.output_schema else "str"
        planner = PLANNERS.get(output_type)
        if planner is None:
            raise ModelBehaviorError(
                f"The offline model cannot answer with a {output_type}, only with: {', '.join(PLANNERS)}. "
                "Set OPENAI_API_KEY to use a real model."
            )
        turn = planner.next_turn(Conversation.from_input(call.input))
        asked = json.dumps([call.system_instructions, call.input], default=str)
        await asyncio.sleep(self._pause_for(asked))
        return ModelStep(output=_items(turn, zlib.crc32(asked.encode())), usage=_usage(asked, turn))

    def _pause_for(self, asked: str) -> float:
        shortest, longest = self.pause
        return shortest + (longest - shortest) * (zlib.crc32(asked.encode()) % 101) / 100


def _items(turn: Turn, seed: int) -> list[TResponseOutputItem]:
    if isinstance(turn, BaseModel):
        return [assistant_message(turn.model_dump_json(), item_id=f"msg_{seed:08x}")]
    return [
        function_call(call.name, call.arguments, call_id=f"call_{seed:08x}_{number}")
        for number, call in enumerate(turn)
    ]


def _usage(asked: str, turn: Turn) -> Usage:
    """Return an estimate of a real model's token counts. All but the latest outputs count as cached."""
    answer = turn.model_dump_json() if isinstance(turn, BaseModel) else repr(turn)
    input_tokens = len(asked) // CHARACTERS_PER_TOKEN
    output_tokens = len(answer) // CHARACTERS_PER_TOKEN
    before = max(asked.rfind('"function_call"'), 0)
    return Usage(
        requests=1,
        input_tokens=input_tokens,
        input_tokens_details=InputTokensDetails.model_validate(
            {"cached_tokens": before // CHARACTERS_PER_TOKEN, "cache_write_tokens": 0}
        ),
        output_tokens=output_tokens,
        output_tokens_details=OutputTokensDetails(reasoning_tokens=0),
        total_tokens=input_tokens + output_tokens,
    )
