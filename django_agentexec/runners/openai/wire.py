"""Answers of models and outputs of tools as JSON that loads again as the SDK's types."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any

from agents import Usage
from agents.items import ModelResponse, TResponseOutputItem
from agents.tool import ToolOutputFileContent, ToolOutputImage, ToolOutputText
from openai.types.responses import Response, ResponseCompletedEvent, ResponseOutputMessage, ResponseUsage
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError
from pydantic_core import PydanticSerializationError

from django_agentexec.models import AgentCall
from django_agentexec.validation import one_line

_ITEM: TypeAdapter[Any] = TypeAdapter(TResponseOutputItem)
_STRUCTURED = {each.__name__: each for each in (ToolOutputText, ToolOutputImage, ToolOutputFileContent)}
_TYPE = "__agentexec_type__"
FAILURES = ("response.incomplete", "response.failed", "error", "response.error")
"""Events that end a stream without an answer."""


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


def completed_event(call: AgentCall, response: ModelResponse) -> ResponseCompletedEvent:
    """Return the event that ends the stream of a recorded answer."""
    usage = response.usage
    event = ResponseCompletedEvent(
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
    event.response._request_id = response.request_id
    return event


def failure_of(event: Any) -> RuntimeError:
    """Return the failure that an event of `FAILURES` reports."""
    response = getattr(event, "response", None)
    reason = getattr(response, "error", None) or getattr(response, "incomplete_details", None) or event
    text = getattr(reason, "message", None) or getattr(reason, "reason", None) or "no reason is given"
    return RuntimeError(f"{event.type}: {text}")


def streamed_response(response: Response, items: Sequence[TResponseOutputItem]) -> ModelResponse:
    """Return the answer that a stream has completed; `items` replaces an output that the last event leaves out."""
    return ModelResponse(
        output=list(response.output or items),
        usage=Usage(requests=1) if response.usage is None else usage_of(response.usage),
        response_id=response.id,
        request_id=getattr(response, "_request_id", None),
    )


def usage_of(reported: ResponseUsage) -> Usage:
    """Return the tokens of a call that a provider has reported."""
    return Usage(
        requests=1,
        input_tokens=reported.input_tokens,
        output_tokens=reported.output_tokens,
        total_tokens=reported.total_tokens,
        input_tokens_details=reported.input_tokens_details,
        output_tokens_details=reported.output_tokens_details,
    )


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


def stored_output(output: Any, schema: TypeAdapter[Any] | None = None) -> Any:
    """Return the output of a tool as JSON. `schema` is that of a tool with a declared output type.

    Other values than JSON, the SDK's types, models and dataclasses are stored as their text, which is what the SDK
    shows the model in any case.
    """
    if schema is not None and not isinstance(output, str):
        return {_TYPE: "typed", "value": schema.dump_python(output, mode="json", by_alias=True, warnings=False)}
    if isinstance(output, BaseModel) and type(output).__name__ in _STRUCTURED:
        return {_TYPE: type(output).__name__, "value": output.model_dump(mode="json")}
    if isinstance(output, list) and any(isinstance(part, BaseModel) for part in output):
        return {_TYPE: "list", "value": [stored_output(part) for part in output]}
    if isinstance(output, BaseModel) or (is_dataclass(output) and not isinstance(output, type)):
        return _stored_object(output)
    return output if _survives(output) else str(output)


def loaded_output(stored: Any, schema: TypeAdapter[Any] | None = None) -> Any:
    """Return the output of a tool from its stored form."""
    if not isinstance(stored, dict) or _TYPE not in stored:
        return stored
    kind, value = stored[_TYPE], stored["value"]
    if kind == "list":
        return [loaded_output(part) for part in value]
    if kind == "typed":
        return _validated(schema, value, value)
    if kind == "object":
        return _loaded_object(stored)
    return _STRUCTURED[kind].model_validate(value)


def output_problem(output: Any, schema: TypeAdapter[Any] | None) -> str:
    """Return why the SDK would refuse an output of a tool with a declared output type, or ""."""
    if schema is None:
        return ""
    try:
        found = schema.validate_json(output) if isinstance(output, str) else schema.validate_python(output)
    except ValidationError as error:
        return one_line(error)
    is_object = isinstance(schema.dump_python(found, mode="json", by_alias=True), Mapping)
    return "" if is_object else "The output must be a JSON object."


def _stored_object(output: Any) -> Any:
    try:
        value = TypeAdapter(type(output)).dump_python(output, mode="json", warnings=False)
    except (PydanticSchemaGenerationError, PydanticSerializationError):
        return str(output)
    name = f"{type(output).__module__}:{type(output).__qualname__}"
    return {_TYPE: "object", "class": name, "value": value, "text": str(output)}


def _loaded_object(stored: dict[str, Any]) -> Any:
    """Return an object of its class, or its text if the class no longer exists or has changed."""
    module, _, name = stored["class"].partition(":")
    found: Any = sys.modules.get(module)  # not imported: rows do not decide about code
    for part in name.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type) or not (issubclass(found, BaseModel) or is_dataclass(found)):
        return stored["text"]
    return _validated(TypeAdapter(found), stored["value"], stored["text"])


def _validated(schema: TypeAdapter[Any] | None, value: Any, otherwise: Any) -> Any:
    try:
        return value if schema is None else schema.validate_python(value)
    except ValidationError:
        return otherwise


def loaded_json(text: str) -> Any:
    """Return the arguments of a tool call as JSON values, or as text if the model wrote no JSON."""
    try:
        return json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return text


def _survives(value: Any) -> bool:
    """Return whether a value is the same after a round trip through JSON, also as text."""
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
