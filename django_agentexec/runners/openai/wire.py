"""Answers of models and outputs of tools as JSON that loads again as the SDK's types."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from agents import Usage
from agents.items import ModelResponse, TResponseOutputItem
from agents.tool import ToolOutputFileContent, ToolOutputImage, ToolOutputText
from openai.types.responses import Response, ResponseCompletedEvent, ResponseOutputMessage, ResponseUsage
from pydantic import BaseModel, TypeAdapter

from django_agentexec.models import AgentCall

_ITEM: TypeAdapter[Any] = TypeAdapter(TResponseOutputItem)
_STRUCTURED = {each.__name__: each for each in (ToolOutputText, ToolOutputImage, ToolOutputFileContent)}
_TYPE = "__agentexec_type__"


def stored_response(response: ModelResponse) -> dict[str, Any]:
    """Return an answer of a model as JSON."""
    return {
        "output": [
            _ITEM.dump_python(item, mode="json", exclude_unset=True, warnings=False) for item in response.output
        ],
        "response_id": response.response_id,
        "request_id": response.request_id,
        "requests": response.usage.requests,
    }


def loaded_response(call: AgentCall) -> ModelResponse:
    """Return a recorded answer of a model."""
    stored: Any = call.output
    return ModelResponse(
        output=[_ITEM.validate_python(item) for item in stored["output"]],
        usage=_usage(call, stored.get("requests", 1)),
        response_id=stored["response_id"],
        request_id=stored.get("request_id"),
    )


def completed_event(call: AgentCall) -> ResponseCompletedEvent:
    """Return the event that ends the stream of a recorded answer."""
    response = loaded_response(call)
    usage = response.usage
    return ResponseCompletedEvent(
        type="response.completed",
        sequence_number=0,
        response=Response.model_construct(
            id=response.response_id or "",
            created_at=0,
            model=call.name,
            object="response",
            output=response.output,
            tool_choice="auto",
            tools=[],
            parallel_tool_calls=True,
            usage=ResponseUsage.model_construct(
                input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens,
                total_tokens=usage.total_tokens,
                input_tokens_details=usage.input_tokens_details,
                output_tokens_details=usage.output_tokens_details,
            ),
        ),
    )


def streamed_response(response: Response, items: Sequence[TResponseOutputItem]) -> ModelResponse:
    """Return the answer that a stream has completed; `items` replaces an output that the last event leaves out."""
    given = response.usage
    usage = Usage(requests=1)
    if given is not None:
        usage = Usage(
            requests=1,
            input_tokens=given.input_tokens,
            output_tokens=given.output_tokens,
            total_tokens=given.total_tokens,
            input_tokens_details=given.input_tokens_details,
            output_tokens_details=given.output_tokens_details,
        )
    return ModelResponse(output=list(response.output or items), usage=usage, response_id=response.id)


def text_of(response: ModelResponse) -> list[str]:
    """Return the texts of the messages of an answer."""
    return [
        "".join(part.text for part in item.content if part.type == "output_text")
        for item in response.output
        if isinstance(item, ResponseOutputMessage)
    ]


def counts_of(usage: Usage) -> dict[str, int]:
    """Return token counts in the form of `Activity.usage`."""
    return {
        "requests": usage.requests,
        "input_tokens": usage.input_tokens,
        "cached_tokens": usage.input_tokens_details.cached_tokens or 0,
        "output_tokens": usage.output_tokens,
        "reasoning_tokens": usage.output_tokens_details.reasoning_tokens or 0,
        "total_tokens": usage.total_tokens,
    }


def stored_output(output: Any) -> Any:
    """Return the output of a tool as JSON. Other values than JSON and the SDK's types are stored as their text.

    The text is what the SDK shows the model in any case.
    """
    if isinstance(output, BaseModel) and type(output).__name__ in _STRUCTURED:
        return {_TYPE: type(output).__name__, "value": output.model_dump(mode="json")}
    if isinstance(output, list) and any(isinstance(part, BaseModel) for part in output):
        return {_TYPE: "list", "value": [stored_output(part) for part in output]}
    return output if _survives(output) else str(output)


def loaded_output(stored: Any) -> Any:
    """Return the output of a tool from its stored form."""
    if isinstance(stored, dict) and _TYPE in stored:
        if stored[_TYPE] == "list":
            return [loaded_output(part) for part in stored["value"]]
        return _STRUCTURED[stored[_TYPE]].model_validate(stored["value"])
    return stored


def loaded_json(text: str) -> Any:
    """Return the arguments of a tool call as JSON values, or as text if the model wrote no JSON."""
    try:
        return json.loads(text) if text else {}
    except ValueError:
        return text


def _survives(value: Any) -> bool:
    """Whether a value is the same after a round trip through JSON, also as text."""
    try:
        return repr(json.loads(json.dumps(value, allow_nan=False))) == repr(value)
    except (TypeError, ValueError, RecursionError):
        return False


def _usage(call: AgentCall, requests: int) -> Usage:
    usage = Usage(
        requests=requests,
        input_tokens=call.input_tokens,
        output_tokens=call.output_tokens,
        total_tokens=call.input_tokens + call.output_tokens,
    )
    usage.input_tokens_details.cached_tokens = call.cached_tokens
    usage.output_tokens_details.reasoning_tokens = call.reasoning_tokens
    return usage
