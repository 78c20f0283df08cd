"""A model server for tests: OpenAI's chat-completions and responses APIs on loopback, with scripted answers.

    with ModelServer([Answer(calls=[Call("add", {"a": 1, "b": 2})]), Answer("It is 3.")]) as server:
        client = AsyncOpenAI(base_url=server.base_url, api_key="test")

Each request takes the next answer, whichever of the two APIs it speaks, streamed or not. What was asked is in
`server.requests`. A request after the last answer gets status 500, which fails the test that made it.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

CREATED = 1_790_000_000  # any Unix time: nobody looks at it


@dataclass(frozen=True)
class Call:
    """A tool call of an answer; `arguments` are sent as JSON, a string as it is."""

    name: str
    arguments: Mapping[str, Any] | str = field(default_factory=dict)

    @property
    def json(self) -> str:
        """The arguments as they go over the wire."""
        return self.arguments if isinstance(self.arguments, str) else json.dumps(self.arguments)


@dataclass(frozen=True)
class Tokens:
    """Token counts that an answer reports; `cached` is part of `input`, `reasoning` of `output`."""

    input: int = 100
    cached: int = 40
    output: int = 20
    reasoning: int = 5


@dataclass(frozen=True)
class Answer:
    """One answer: text, tool calls or both; or, with another `status` than 200, an error.

    It is given when `when` is set, if there is such an event. With `cut_after`, the server closes the connection in the
    middle of the stream after so many words, once `cut_when` is set. `code` is that of an error.
    """

    text: str = ""
    calls: Sequence[Call] = ()
    tokens: Tokens = Tokens()
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    when: threading.Event | None = None
    cut_after: int | None = None
    cut_when: threading.Event | None = None
    code: str | None = None


@dataclass(frozen=True)
class Request:
    """One request as it arrived."""

    path: str
    body: dict[str, Any]


class ModelServer:
    """Serves `answers` in their order, in a thread, between `__enter__` and `__exit__`."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        self._answers = iter(answers)
        self._lock = threading.Lock()
        self.requests: list[Request] = []
        self.has_request = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True

    @property
    def base_url(self) -> str:
        """What a client takes as its `base_url`."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def answer(self, request: Request) -> tuple[int, Answer]:
        """Record `request`; return its number, from 0, and the answer to it."""
        with self._lock:
            self.requests.append(request)
            self.has_request.set()
            return len(self.requests) - 1, next(self._answers, Answer(status=500))

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(server: ModelServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        _extra_headers: Mapping[str, str] = {}

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            number, answer = server.answer(Request(self.path, body))
            if answer.when is not None:
                answer.when.wait(60)
            self._extra_headers = answer.headers
            if answer.status != 200:
                self._send(answer.status, "application/json", _error(answer.status, answer.code))
            elif answer.cut_after is not None:
                chat = self.path.endswith("/chat/completions")
                self._cut(answer, chat_chunks(number, answer, body) if chat else response_events(number, answer))
            elif self.path.endswith("/chat/completions"):
                self._reply(body, chat_completion(number, answer), chat_chunks(number, answer, body))
            elif self.path.endswith("/responses"):
                self._reply(body, response(number, answer), response_events(number, answer))
            else:
                self._send(404, "application/json", _error(404))

        def _reply(self, body: dict[str, Any], whole: dict[str, Any], events: Iterator[str]) -> None:
            if body.get("stream"):
                self._send(200, "text/event-stream", "".join(events))
            else:
                self._send(200, "application/json", json.dumps(whole))

        def _cut(self, answer: Answer, events: Iterator[str]) -> None:
            """Send the stream up to a word, and close the connection."""
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            words = 0
            for event in events:
                if words == answer.cut_after:
                    break
                words += ('"delta": {"content": "' in event and '"content": ""' not in event) or "text.delta" in event
                data = event.encode()
                self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
                self.wfile.flush()
            if answer.cut_when is not None:
                answer.cut_when.wait(60)
            self.close_connection = True

        def _send(self, status: int, content_type: str, text: str) -> None:
            data = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Connection", "close")
            for name, value in self._extra_headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)
            self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            """Write nothing; the requests are recorded."""

    return Handler


def _error(status: int, code: str | None = None) -> str:
    return json.dumps({"error": {"message": f"scripted error {status}", "type": "server_error", "code": code}})


def chat_completion(number: int, answer: Answer) -> dict[str, Any]:
    """Return the whole of a chat completion."""
    message: dict[str, Any] = {"role": "assistant", "content": answer.text or None}
    if answer.calls:
        message["tool_calls"] = [_chat_call(number, index, call) for index, call in enumerate(answer.calls)]
    choice = {"index": 0, "message": message, "finish_reason": _finish_reason(answer), "logprobs": None}
    return {**_chat_head(number, "chat.completion"), "choices": [choice], "usage": _chat_usage(answer.tokens)}


def chat_chunks(number: int, answer: Answer, body: dict[str, Any]) -> Iterator[str]:
    """Yield a chat completion's stream; with usage only if it was asked for, as the API does."""

    def chunk(choices: list[dict[str, Any]], **more: Any) -> str:
        head = _chat_head(number, "chat.completion.chunk")
        return f"data: {json.dumps({**head, 'choices': choices, **more})}\n\n"

    def delta(content: dict[str, Any], finish: str | None = None) -> str:
        return chunk([{"index": 0, "delta": content, "finish_reason": finish, "logprobs": None}])

    yield delta({"role": "assistant", "content": ""})
    for word in re.findall(r"\S+\s*", answer.text):
        yield delta({"content": word})
    for index, call in enumerate(answer.calls):
        yield delta({"tool_calls": [{"index": index, **_chat_call(number, index, call)}]})
    yield delta({}, _finish_reason(answer))
    if (body.get("stream_options") or {}).get("include_usage"):
        yield chunk([], usage=_chat_usage(answer.tokens))
    yield "data: [DONE]\n\n"


def _chat_head(number: int, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{number}", "object": kind, "created": CREATED, "model": "scripted"}


def _chat_call(number: int, index: int, call: Call) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.json}
    return {"id": f"call_{number}_{index}", "type": "function", "function": function}


def _finish_reason(answer: Answer) -> str:
    return "tool_calls" if answer.calls else "stop"


def _chat_usage(tokens: Tokens) -> dict[str, Any]:
    return {
        "prompt_tokens": tokens.input,
        "completion_tokens": tokens.output,
        "total_tokens": tokens.input + tokens.output,
        "prompt_tokens_details": {"cached_tokens": tokens.cached},
        "completion_tokens_details": {"reasoning_tokens": tokens.reasoning},
    }


def response(number: int, answer: Answer, *, status: str = "completed") -> dict[str, Any]:
    """Return the whole of a response; without output while its `status` is `in_progress`."""
    done = status == "completed"
    return {
        "id": f"resp_{number}",
        "object": "response",
        "created_at": CREATED,
        "model": "scripted",
        "status": status,
        "output": list(_output(number, answer)) if done else [],
        "usage": _response_usage(answer.tokens) if done else None,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
    }


def response_events(number: int, answer: Answer) -> Iterator[str]:
    """Yield a response's stream: created, each item with the text's deltas, completed."""
    for position, event in enumerate(_events(number, answer)):
        data = json.dumps({**event, "sequence_number": position})
        yield f"event: {event['type']}\ndata: {data}\n\n"


def _events(number: int, answer: Answer) -> Iterator[dict[str, Any]]:
    yield {"type": "response.created", "response": response(number, answer, status="in_progress")}
    for index, item in enumerate(_output(number, answer)):
        place = {"output_index": index, "item_id": item["id"]}
        yield {"type": "response.output_item.added", "output_index": index, "item": _begun(item)}
        if item["type"] == "message":
            for word in re.findall(r"\S+\s*", answer.text):
                delta = {"type": "response.output_text.delta", "delta": word}
                yield {**delta, **place, "content_index": 0, "logprobs": []}
        else:
            done = {"type": "response.function_call_arguments.done", "name": item["name"]}
            yield {**done, **place, "arguments": item["arguments"]}
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    yield {"type": "response.completed", "response": response(number, answer)}


def _output(number: int, answer: Answer) -> Iterator[dict[str, Any]]:
    if answer.text:
        content = {"type": "output_text", "text": answer.text, "annotations": [], "logprobs": []}
        message = {"id": f"msg_{number}", "type": "message", "role": "assistant", "status": "completed"}
        yield {**message, "content": [content]}
    for index, call in enumerate(answer.calls):
        ids = {"id": f"fc_{number}_{index}", "call_id": f"call_{number}_{index}"}
        yield {
            **ids,
            "type": "function_call",
            "name": call.name,
            "arguments": call.json,
            "status": "completed",
        }


def _begun(item: dict[str, Any]) -> dict[str, Any]:
    empty: dict[str, Any] = {"content": []} if item["type"] == "message" else {"arguments": ""}
    return {**item, **empty, "status": "in_progress"}


def _response_usage(tokens: Tokens) -> dict[str, Any]:
    return {
        "input_tokens": tokens.input,
        "output_tokens": tokens.output,
        "total_tokens": tokens.input + tokens.output,
        "input_tokens_details": {"cached_tokens": tokens.cached, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
    }
