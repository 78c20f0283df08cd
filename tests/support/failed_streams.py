"""Streams that end without an answer, and report the tokens that their provider bills."""

from __future__ import annotations

from typing import Any

from agents.testing import ModelStep
from openai.types.responses import Response, ResponseFailedEvent, ResponseIncompleteEvent, ResponseUsage
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails


def _response(output_tokens: int) -> Response:
    usage = ResponseUsage.model_construct(
        input_tokens=1,
        output_tokens=output_tokens,
        total_tokens=output_tokens + 1,
        input_tokens_details=InputTokensDetails.model_construct(cached_tokens=0),
        output_tokens_details=OutputTokensDetails.model_construct(reasoning_tokens=0),
    )
    return Response.model_construct(id="1", output=[], usage=usage, error=None, incomplete_details=None)


def failed(output_tokens: int) -> ModelStep:
    """Return the step of an outage: the provider ends the stream by `response.failed`."""
    event: Any = ResponseFailedEvent.model_construct(
        type="response.failed", response=_response(output_tokens), sequence_number=0
    )
    return ModelStep(stream_events=[event])


def incomplete(output_tokens: int) -> ModelStep:
    """Return the step of an answer that is cut at a limit, which is no outage."""
    event: Any = ResponseIncompleteEvent.model_construct(
        type="response.incomplete", response=_response(output_tokens), sequence_number=0
    )
    return ModelStep(stream_events=[event])
