"""The model of the durable agents' tests: answers by conversation, so that a repeated request gets the same answer."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from tests.support.model_server import Answer, Call, ModelServer, Request

Script = list[Answer]


def _look(*items: str, tool: str = "look_up") -> Answer:
    return Answer(calls=[Call(tool, {"item": item}) for item in items])


def _handoff(target: str) -> Answer:
    return Answer(calls=[Call(f"transfer_to_{target}")])


def _ask(*names: str) -> Answer:
    return Answer(calls=[Call(f"ask_{name}", {"input": f"Please, {name}."}) for name in names])


FINAL = "All of it is done and well."
HELPED = {name: [_look(name), Answer("I have helped.")] for name in ("one", "two")}
SCRIPTS: dict[str, dict[str, Script]] = {
    "sequential": {"boss": [_look("a"), _look("b"), Answer(FINAL)]},
    "parallel": {"boss": [_look("a", "b", "c"), Answer(FINAL)]},
    "handoffs": {
        "boss": [
            _look("a"), _handoff("beta"), _look("b", tool="check"), _handoff("alpha"), _look("c"), _handoff("beta"),
            Answer(FINAL),
        ]
    },
    "agents_as_tools": {"boss": [_ask("one", "two"), Answer(FINAL)], **HELPED},
    "streaming": {
        "boss": [Answer("First I look it up.", calls=[Call("look_up", {"item": "a"})]), Answer(FINAL)]
    },
    "guardrails": {
        "boss": [_look("a"), Answer(FINAL)], "guard": [Answer("Harmless.")], "censor": [Answer("Polite.")],
    },
    "mcp": {
        "boss": [
            Answer(calls=[Call("take_note", {"text": "a"})]), Answer(calls=[Call("take_note", {"text": "b"})]),
            Answer(FINAL),
        ]
    },
    "approval": {"boss": [_look("letter", tool="send"), Answer(FINAL)]},
    "nested_approval": {
        "boss": [_ask("one"), Answer(FINAL)],
        "one": [
            Answer(calls=[Call("look_up", {"item": "x"}), Call("send", {"item": "letter"})]), Answer("I have sent it."),
        ],
    },
    "gather": HELPED,
    "changed_code": {"boss": [_look("a", "b"), _look("c"), Answer(FINAL)]},
    "session": {"boss": [_look("a", "b"), _look("c"), Answer(FINAL)]},
    "session_approval": {"boss": [_look("a"), _look("letter", tool="send"), Answer(FINAL)]},
    "pydantic_ai": {"boss": [_look("a", "b"), _look("c"), Answer(FINAL)]},
}  # fmt: skip
ITEMS = {
    "session": [
        *("user", "user"), *["function_call"] * 2, *["function_call_output"] * 2,
        *("function_call", "function_call_output", "assistant"),
    ],
    "session_approval": ["user", "user", *["function_call", "function_call_output"] * 2, "assistant"],
}  # fmt: skip
"""The history of each conversation at its end: one earlier item, and those of the run."""


class ScriptedServer(ModelServer):
    """Answers by the activity (in the path), the model, and the number of turns in the request."""

    def __init__(self) -> None:
        super().__init__([])
        self.scripts: dict[str, dict[str, Script]] = {}
        """By activity."""
        self.counts: Counter[tuple[str, str, int]] = Counter()
        """Requests by activity, model and turn."""

    def answer(self, request: Request) -> tuple[int, Answer]:
        """Count `request`; return its number and the answer to it."""
        activity, model = request.path.split("/")[2], request.body["model"]
        script = self.scripts[activity][model]
        turn = _turn(request.body, script)
        with self._lock:
            self.counts[activity, model, turn] += 1
            number = sum(self.counts.values())
        return number, _with_offered_tools(script[turn], request.body)

    def counts_of(self, activity: str) -> Counter[tuple[str, str, int]]:
        """Return the requests of an activity so far."""
        with self._lock:
            return Counter({key: count for key, count in self.counts.items() if key[0] == activity})


def _with_offered_tools(answer: Answer, body: dict[str, Any]) -> Answer:
    """Return an answer which calls the only tool that is offered, as a model does after a tool was renamed."""
    offered = [tool.get("name") or tool["function"]["name"] for tool in body.get("tools") or ()]
    if len(offered) != 1:
        return answer
    return replace(answer, calls=[replace(call, name=offered[0]) for call in answer.calls])


def _turn(body: dict[str, Any], script: Script) -> int:
    if "messages" in body:
        return sum(1 for message in body["messages"] if message["role"] == "assistant")
    given = body["input"] if isinstance(body["input"], list) else []
    made = sum(1 for item in given if item.get("type") == "function_call" or item.get("role") == "assistant")
    for turn, answer in enumerate(script):
        if made <= 0:
            return turn
        made -= len(answer.calls) + bool(answer.text)
    raise AssertionError(f"There is no answer to {body}")
