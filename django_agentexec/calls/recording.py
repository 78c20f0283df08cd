"""`RecordedRun`: one run of an agent of any framework, whose model and tool calls are recorded and replayed."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, NoReturn, TypeVar, cast

from django.utils import timezone
from pydantic_core import to_jsonable_python

from ..budgets.calls import Request, begin_charged
from ..budgets.estimates import PossibleModel
from ..costs.library import MAX_PROVIDER
from ..costs.prices import acost_of
from ..current import OwningAttempt, current_attempt
from ..exceptions import InvalidOption
from ..limits.gate import Grant
from ..limits.recorded import limit_of
from ..models import AgentCall, CallKind, CallState
from ..money import storable
from ..validation import one_line
from .doubts import UNKNOWN_OUTCOME as UNKNOWN_OUTCOME
from .doubts import outcome_by_person
from .halting import Halted
from .paths import digest_of
from .position import Position, at_position, current_position, current_scope, inside_scope

T = TypeVar("T")
AddUsage = Callable[..., Awaitable[None]]
"""Takes the counts, and the cost if it is known."""

TOKENS = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")
MAX_NAME = 200  # characters; the columns' size


def as_json(value: Any) -> Any:
    """Return a value as JSON: Pydantic's form, and the text of objects that have none."""
    return to_jsonable_python(value, fallback=str, serialize_unknown=True)


def unchanged(value: Any) -> Any:
    """Return the value."""
    return value


class RecordedRun:
    """One run of an agent. Created by `BaseAgentRunner.recorded_run`.

    Without a position, nothing is recorded: the calls are made, and their usage is added to the activity.
    """

    def __init__(self, agent: str, position: Position | None, add_usage: AddUsage) -> None:
        self.agent = agent
        self.output: Any = None
        """The final output, for the trace; set it before the end of the run."""
        self._position = position
        self._add_usage = add_usage

    @property
    def is_replaying(self) -> bool:
        """Whether the latest model call was answered from the record."""
        return self._position is not None and self._position.is_replaying

    async def model_call(
        self,
        request: Any,
        call: Callable[[], Awaitable[T]],
        *,
        model: str = "",
        provider: str = "",
        max_tokens: int | None = None,
        dump: Callable[[T], Any] = as_json,
        load: Callable[[Any], T] = unchanged,
        usage: Callable[[T], Mapping[str, int]] | None = None,
        cost: Callable[[T], Decimal | None] | None = None,
    ) -> T:
        """Return the recorded answer to the run's next model call, or call the model and record its answer.

        The answer is committed before this returns. The model calls of a run are numbered in the order of their start,
        so they must not overlap. `request` is compared with the recorded request; a difference is only marked in the
        trace. `dump` converts an answer to JSON, and `load` converts it back. `usage` returns the token counts of an
        answer, with the keys of `add_usage`. `cost` returns its price in US dollars (None: unknown); by default it is
        calculated from the tokens, and the names of `model` and `provider`. `max_tokens`, the longest answer, makes the
        estimates for budgets and limits precise.

        A call waits for the limits of `MODEL_LIMITS`. Raises `Suspended`, which no code may catch, if it waits for long
        or for a budget, and `BudgetExceeded`.
        """
        position = self._position
        target = PossibleModel(model[:MAX_NAME], provider[:MAX_PROVIDER], max_tokens)
        if position is None:
            return await self._unrecorded_call(target, request, call, usage, cost)
        digest = digest_of(request)
        if (recorded := _replayed(position, digest)) is not None:
            return load(recorded.output)
        row = self._row(position, CallKind.MODEL, position.ordinal, name=model)
        row.digest, row.provider = digest, target.provider
        await self._begin(position, row, request, target)
        try:
            async with limit_of(position, target, request) as grant:
                position.ordinal += 1
                answer = await call()
                row.output, counts = dump(answer), _counts(answer, usage)
                _use(grant, counts)
            row.cost = await _cost_of(target, counts) if cost is None else storable(cost(answer))
        except BaseException as error:
            position.ordinal = row.ordinal  # a retry of the framework requests the same answer
            position.journal.fail_soon(row, error)
            if isinstance(error, Halted):
                await self._leave(position, error)
            raise
        row.state = CallState.DONE
        for name in TOKENS:
            setattr(row, name, counts.get(name, 0))
        await position.journal.finish(row, usage=counts, cost=row.cost)
        return answer

    async def tool_call(
        self,
        call_id: str,
        name: str,
        arguments: Any,
        call: Callable[[], Awaitable[T] | T],
        *,
        dump: Callable[[T], Any] = as_json,
        load: Callable[[Any], T] = unchanged,
        in_doubt: str = "rerun",
    ) -> T:
        """Return the recorded output of a tool call, or call the tool and record its output.

        `call_id` is the id that the model gave the call; it is unique among the calls of one answer. A call that was
        started when its process died is made again, or with `in_doubt="fail"` answered with an error text. With
        `"ask"` a person decides: the activity is suspended until the call is approved (it is made again, or has the
        output that the person gives, in the form of `dump`) or rejected (the error text); an output that `load` rejects
        is asked for again, with the error. A call that raises is recorded as failed, and a later attempt makes it
        again. Inside the call `tool_key()` returns its key, and runs of agents are recorded below it.
        """
        if in_doubt not in ("rerun", "fail", "ask"):
            raise InvalidOption(f"tool_call(in_doubt={in_doubt!r}) must be 'rerun', 'fail' or 'ask'.")
        position = self._position
        if position is None:
            return await _result(call)
        row = position.tool_call(call_id)
        if row is not None and row.state in (CallState.DONE, CallState.IN_DOUBT):
            return cast(T, row.output) if row.state == CallState.IN_DOUBT else load(row.output)
        if row is not None and position.is_in_doubt(row) and in_doubt != "rerun":
            outcome: tuple[CallState, Any] | None = CallState.IN_DOUBT, UNKNOWN_OUTCOME
            if in_doubt == "ask":
                name_of_agent = self.agent[:MAX_NAME]
                outcome = await outcome_by_person(position, row, call_id, as_json(arguments), name_of_agent, load)
            if outcome is not None:
                row.state, row.output = outcome
                await position.journal.settle(row)
                return load(row.output) if row.state == CallState.DONE else cast(T, row.output)
        row = self._row(position, CallKind.TOOL, max(0, position.ordinal - 1), call_id, name=name)
        row.arguments = as_json(arguments)
        await position.journal.begin(row)
        try:
            with inside_scope(position.scope_of_call(call_id)):
                value = await _result(call)
            row.output = dump(value)
        except Exception as error:
            position.journal.fail_soon(row, error)
            raise
        row.state = CallState.DONE
        await position.journal.finish(row)
        return value

    async def _unrecorded_call(
        self,
        model: PossibleModel,
        request: Any,
        call: Callable[[], Awaitable[T]],
        usage: Callable[[T], Mapping[str, int]] | None,
        cost: Callable[[T], Decimal | None] | None,
    ) -> T:
        """Make a call, and add its tokens and its cost to the activity; outside of workers, no price is looked up."""
        async with limit_of(None, model, request) as grant:
            answer = await call()
            counts = _counts(answer, usage)
            _use(grant, counts)
        attempt, known = current_attempt(), None
        if cost is not None:
            known = storable(cost(answer))
        elif attempt is not None and attempt.root.records_calls:
            known = await _cost_of(model, counts)
        await self._add_usage(counts, *([] if known is None else [known]))
        return answer

    async def _begin(self, position: Position, row: AgentCall, request: Any, model: PossibleModel) -> None:
        """Write the start of a model call. Raises `Suspended` or `BudgetExceeded` if a budget does not cover it."""
        try:
            await begin_charged(position, row, Request(lambda: request, lambda: [model]))
        except Halted as halted:
            await self._leave(position, halted)

    async def _leave(self, position: Position, halted: Halted) -> NoReturn:
        """Raise `Suspended` or `BudgetExceeded`; before a suspension, other runs pause."""
        if halted.is_suspension:
            await position.journal.active_runs.pause(position.path)
        raise halted.outcome from None

    def _row(self, position: Position, kind: CallKind, ordinal: int, call_id: str = "", *, name: str = "") -> AgentCall:
        """Return the row of a call that starts now."""
        journal = position.journal
        row = journal.find(position.path, kind, ordinal, call_id)
        if row is None:
            row = journal.new_call(position.path, kind, ordinal, call_id)
        row.agent, row.name = self.agent[:MAX_NAME], name[:MAX_NAME]
        row.state, row.error, row.finished_at, row.started_at = CallState.STARTED, "", None, timezone.now()
        row.attempt, row.fence = journal.attempt.number, journal.attempt.fence
        return row


@asynccontextmanager
async def recording(
    attempt: OwningAttempt, agent: str, input: Any, key: str | None, on_change: str, add_usage: AddUsage
) -> AsyncIterator[RecordedRun]:
    """Record one run of an agent from its start to its end; see `BaseAgentRunner.recorded_run`."""
    position = await place_run(attempt, agent, as_json(input), key, on_change)
    position.agent = agent
    run = RecordedRun(agent, position, add_usage)
    position.journal.active_runs.add(position.path)
    try:
        with at_position(position):
            yield run
        position.end(CallState.DONE, output=as_json(run.output))
    except Exception as error:
        position.end(CallState.FAILED, error=one_line(error))
        raise
    finally:
        position.leave()
        position.journal.active_runs.remove(position.path)


async def place_run(attempt: OwningAttempt, agent: str, input: Any, key: str | None, on_change: str) -> Position:
    """Find the place of a run that begins now, record its start, and return its position."""
    outer, scope, digest = current_position(), await current_scope(attempt), digest_of(input)
    if outer is not None and key is None:
        position = outer.begin_side_run(agent, digest)
    else:
        position = scope.begin_run(agent, digest, key)
    run = position.recorded_run()
    if run is not None and run.digest != digest and on_change == "restart":
        await position.journal.set_aside(position.path)
    position.begin(agent, digest, input)
    return position


def _replayed(position: Position, digest: str) -> AgentCall | None:
    """Return the recorded answer to the next call of a run, or None."""
    recorded = position.next_model_call()
    position.is_replaying = recorded is not None
    if recorded is not None:
        position.ordinal += 1
        if recorded.digest != digest and not recorded.has_changed:
            recorded.has_changed = True
            position.journal.begin_soon(recorded)
    return recorded


async def _cost_of(model: PossibleModel, counts: Mapping[str, int]) -> Decimal | None:
    """Return the cost of a call that has just ended, or None if it is unknown."""
    tokens = {name: counts.get(name, 0) for name in TOKENS}
    return await acost_of(AgentCall(name=model.name, provider=model.provider, **tokens))


def _use(grant: Grant | None, counts: Mapping[str, int]) -> None:
    """Note the tokens of a call for its limits, if they are known."""
    if grant is not None:
        grant.tokens = counts["total_tokens"] or None


def _counts(answer: T, usage: Callable[[T], Mapping[str, int]] | None) -> dict[str, int]:
    counts = {"requests": 1, **(usage(answer) if usage is not None else {})}
    counts.setdefault("total_tokens", counts.get("input_tokens", 0) + counts.get("output_tokens", 0))
    return counts


async def _result(call: Callable[[], Awaitable[T] | T]) -> T:
    value = call()
    return await value if inspect.isawaitable(value) else value
