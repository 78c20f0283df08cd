"""Which errors are worth another try, and when it is due."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from urllib.error import HTTPError
from uuid import UUID, uuid4

import httpx2
import openai
import pytest
from agents import (
    Agent,
    GuardrailFunctionOutput,
    InputGuardrail,
    InputGuardrailTripwireTriggered,
    MaxTurnsExceeded,
    ModelBehaviorError,
    OutputGuardrail,
    OutputGuardrailTripwireTriggered,
    RunContextWrapper,
    UserError,
    function_tool,
)
from agents.exceptions import ModelRefusalError, ModelTimeoutError
from agents.testing import ScriptedModel, assistant_message, function_call
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError
from pydantic import BaseModel
from redis.exceptions import AuthenticationError

from django_agentexec import OpenAIRunner, Task, TaskFailed
from django_agentexec.tasks.retry import FINAL_NAMES, is_transient
from tests.support.activity_recorder import record_activity


class Nothing(BaseModel):
    pass


def handler(agent_id: UUID, context: Nothing) -> None: ...


def answered(
    status: int, code: str | None = None, headers: dict[str, str] | None = None, *, kind: type[Any] | None = None
) -> openai.APIStatusError:
    """Return the error of openai's client for an answer of this status."""
    response = httpx2.Response(status, headers=headers, request=httpx2.Request("POST", "http://localhost"))
    body = {"message": "no", "code": code, "type": code}
    return (kind or openai.APIStatusError)("no", response=response, body=body)  # type: ignore[no-any-return]


class AnthropicLike(Exception):
    """As anthropic's `APIStatusError`: the body is the whole answer."""

    def __init__(self, status: int, kind: str) -> None:
        super().__init__(kind)
        self.status_code = status
        self.body = {"type": "error", "error": {"type": kind, "message": "no"}}
        self.response = SimpleNamespace(headers={}, status_code=status)


class AiohttpLike(Exception):
    """As aiohttp's `ClientResponseError`: status and headers are its own."""

    def __init__(self, status: int, headers: dict[str, str] | None = None) -> None:
        super().__init__(status)
        self.status = status
        self.headers = headers


def failed_status(status: int) -> httpx2.HTTPStatusError:
    request = httpx2.Request("GET", "http://localhost")
    return httpx2.HTTPStatusError("no", request=request, response=httpx2.Response(status, request=request))


def stream_failure(text: str) -> ModelBehaviorError:
    return ModelBehaviorError(f"Responses stream ended with terminal event `response.failed`. {text}")


PERMANENT: list[BaseException] = [
    *(answered(status) for status in (400, 401, 403, 404, 405, 410, 413, 422, 451)),
    answered(429, "insufficient_quota"),
    answered(500, "insufficient_quota"),
    answered(400, "context_length_exceeded"),
    openai.APIError("no", httpx2.Request("POST", "http://localhost"), body={"code": "context_length_exceeded"}),
    answered(429, None, {"x-should-retry": "false"}),
    answered(503, None, {"X-Should-Retry": "false"}),
    openai.OpenAIError("The api_key client option must be set"),
    AnthropicLike(400, "invalid_request_error"),
    AnthropicLike(429, "billing_error"),
    failed_status(404),
    AiohttpLike(403),
    HTTPError("http://localhost", 404, "Not Found", None, None),  # type: ignore[arg-type]  # headers may be missing
    AuthenticationError("wrong password"),
    MaxTurnsExceeded("Max turns (2) exceeded"),
    ModelBehaviorError("Tool nope not found in agent Clerk"),
    ModelRefusalError("I cannot do that."),
    UserError("wrong use"),
    stream_failure("error=ResponseError(code='context_length_exceeded')"),
    ModelBehaviorError("Responses stream ended with terminal event `response.incomplete`."),
    ImproperlyConfigured("no"),
    TypeError("no"),
    NameError("no"),
    AttributeError("no"),
    ModuleNotFoundError("no"),
    NotImplementedError("no"),
    ExceptionGroup("two", [ConnectionError(), TypeError()]),
]

TRANSIENT: list[BaseException] = [
    *(answered(status) for status in (408, 409, 425, 429, 500, 502, 503, 504, 529)),
    answered(429, "rate_limit_exceeded"),
    answered(400, None, {"x-should-retry": "true"}),
    openai.APIConnectionError(request=httpx2.Request("POST", "http://localhost")),
    openai.APITimeoutError(httpx2.Request("POST", "http://localhost")),
    openai.APIError("no", httpx2.Request("POST", "http://localhost"), body={"code": "server_error"}),
    AnthropicLike(529, "overloaded_error"),
    AnthropicLike(200, "overloaded_error"),  # reported in the middle of a stream
    failed_status(502),
    httpx2.ConnectTimeout("no"),
    httpx2.ReadError("no"),
    AiohttpLike(503),
    stream_failure("error=ResponseError(code='server_error')"),
    ModelTimeoutError(30),
    ConnectionError("no"),
    TimeoutError("no"),
    OSError("no"),
    OperationalError("no"),
    ValueError("a user's own"),
    KeyError("a user's own"),
    RuntimeError("a user's own"),
    TaskFailed(UUID(int=7), "a child's", 1),
    ExceptionGroup("two", [ConnectionError(), TimeoutError()]),
]


def name(error: BaseException) -> str:
    return f"{type(error).__name__}-{getattr(error, 'status_code', '')}-{error}"[:60]


@pytest.mark.parametrize("error", PERMANENT, ids=name)
def test_what_a_repetition_cannot_fix_is_final(error: BaseException) -> None:
    assert Task("t", handler).retry_delay(error, 1) is None


@pytest.mark.parametrize("error", TRANSIENT, ids=name)
def test_what_may_pass_is_retried(error: BaseException) -> None:
    assert Task("t", handler).retry_delay(error, 1) is not None


def test_the_task_decides_before_the_default() -> None:
    quota, connection = answered(429, "insufficient_quota", kind=openai.RateLimitError), ConnectionError()

    eager = Task("t", handler, retry_on=[openai.RateLimitError, TypeError], give_up_on=[ImproperlyConfigured])
    everything = Task("t", handler, retry_on=Exception)
    picky = Task("t", handler, give_up_on=ConnectionError)

    assert eager.retry_delay(quota, 1) is not None
    assert eager.retry_delay(TypeError(), 1) is not None
    assert eager.retry_delay(connection, 1) is None
    assert everything.retry_delay(quota, 1) is not None
    assert picky.retry_delay(connection, 1) is None
    assert picky.retry_delay(TypeError(), 1) is None


def wrapped(cause: Exception) -> UserError:
    """Return what the SDK raises for an error of a tool."""
    try:
        raise UserError("Error running tool look") from cause
    except UserError as error:
        return error


def test_the_error_of_a_tool_is_judged_by_itself() -> None:
    busy = answered(429, None, {"retry-after": "90"}, kind=openai.RateLimitError)
    default = Task("t", handler, backoff=lambda retry, error: 1.0)

    assert default.retry_delay(wrapped(busy), 1) == 90.0
    assert default.retry_delay(wrapped(ConnectionError()), 1) == 1.0
    assert default.retry_delay(wrapped(TypeError()), 1) is None
    assert Task("t", handler, retry_on=ConnectionError).retry_delay(wrapped(ConnectionError()), 1) is not None
    assert Task("t", handler, give_up_on=ConnectionError).retry_delay(wrapped(ConnectionError()), 1) is None


def test_a_provider_without_a_response_object_names_its_wait() -> None:
    definition = Task("t", handler, backoff=lambda retry, error: 1.0)

    assert definition.retry_delay(AiohttpLike(429, {"Retry-After": "30"}), 1) == 30.0


def test_an_attribute_that_cannot_be_read_is_not_there() -> None:
    class Odd(Exception):
        @property
        def response(self) -> Any:
            raise RuntimeError("The response has not been set.")

    assert is_transient(Odd())


# What the SDK itself raises


def trip(*arguments: Any) -> GuardrailFunctionOutput:
    return GuardrailFunctionOutput(output_info="bad", tripwire_triggered=True)


async def raised_by(agent: Agent[Any], **options: Any) -> Exception:
    with pytest.raises(Exception) as raised:  # noqa: PT011  # whatever the SDK raises is the point
        await OpenAIRunner(uuid4()).run(agent, "Hi", **options)
    return raised.value


@function_tool
def fetch(page: int) -> str:
    """Fetch a page."""
    return f"Contents of {page}"


class Answer(BaseModel):
    number: int


async def test_the_sdks_own_refusals_are_final(monkeypatch: pytest.MonkeyPatch) -> None:
    record_activity(monkeypatch)
    answer = [assistant_message("Hello.")]
    call = [function_call("fetch", {"page": 1}, call_id="1")]
    errors = [
        await raised_by(Agent("A", model=ScriptedModel([answer]), input_guardrails=[InputGuardrail(trip)])),
        await raised_by(Agent("A", model=ScriptedModel([answer]), output_guardrails=[OutputGuardrail(trip)])),
        await raised_by(Agent("A", model=ScriptedModel([[function_call("nope", {}, call_id="1")]]))),
        await raised_by(Agent("A", model=ScriptedModel([answer]), output_type=Answer)),
        await raised_by(Agent("A", model=ScriptedModel([call, call]), tools=[fetch]), max_turns=1),
    ]

    assert [type(error) for error in errors] == [
        InputGuardrailTripwireTriggered,
        OutputGuardrailTripwireTriggered,
        ModelBehaviorError,
        ModelBehaviorError,
        MaxTurnsExceeded,
    ]
    assert [is_transient(error) for error in errors] == [False] * 5


async def test_an_error_that_a_tool_lets_through_is_judged_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    record_activity(monkeypatch)

    @function_tool(failure_error_function=None)
    async def look(wrapper: RunContextWrapper[Any]) -> str:
        """Look."""
        raise ConnectionError("No line.")

    model = ScriptedModel([[function_call("look", {}, call_id="1")]])
    error = await raised_by(Agent("A", model=model, tools=[look]))

    assert isinstance(error, UserError)
    assert is_transient(error)


def test_the_names_of_the_sdk_are_those_that_it_has() -> None:
    import agents.exceptions

    names = {each.rpartition(".")[2] for each in FINAL_NAMES if each.startswith("agents.")}
    assert {each for each in names if not hasattr(agents.exceptions, each)} == set()
