"""`Once`: a side effect of a handler that happens once, and whose result later attempts read."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args, get_origin, get_type_hints
from weakref import WeakKeyDictionary

from asgiref.sync import sync_to_async
from django.db import connections
from django.db.transaction import TransactionManagementError
from django.utils import timezone
from pydantic import TypeAdapter
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError

from ..activity.store import database
from ..current import OwningAttempt
from ..exceptions import InvalidOption, ResultError
from ..models import AgentCall, CallKind, CallState
from ..models.calls import MAX_CALL_ID
from ..serialization.results import ResultForm, TypeChanged
from ..threads import call as call_in_thread
from ..validation import is_storable, one_line
from .journal import Journal, journal_of
from .paths import clean, digest_of, joined
from .position import Scope, inside_scope

UNSET: Any = object()
"""No `result_type`: the annotation of the function decides."""


class Once:
    """One call of `attempt.once`. Raises `InvalidOption` for an unsuitable key and an unknown type."""

    def __init__(self, attempt: OwningAttempt, key: str, function: Callable[[], Any], result_type: Any) -> None:
        self._source = f"attempt.once({key!r})"
        if not (isinstance(key, str) and key and is_storable(key) and len(key) <= MAX_CALL_ID):
            raise InvalidOption(
                f"{self._source}: the key must be text of 1 to {MAX_CALL_ID} characters, such as 'invoice'."
            )
        if not callable(function):
            raise InvalidOption(f"{self._source}: {function!r:.100} is not callable; pass a function, not its result.")
        self._attempt = attempt
        self._key = key
        self._function = function
        self._form = self._result_form(result_type)

    async def run(self) -> Any:
        """Return the recorded result, or call the function and record its result."""
        if not self._attempt.root.records_calls:
            value, canceled = await self._call()
            if canceled is not None:
                raise canceled
            return self._form.loaded(self._form.stored(value, self._source))
        await sync_to_async(self._check_no_transaction)()
        journal = await journal_of(self._attempt)
        keys = _keys_of(self._attempt)
        place = self._attempt.scope, self._key
        while (other := keys.claim(place, self._function, self._source)) is not None:
            await asyncio.shield(asyncio.wrap_future(other))  # a canceled waiter must not cancel it
        try:
            with _holding(place):
                return await self._recorded(journal)
        finally:
            keys.release(place)

    async def _recorded(self, journal: Journal) -> Any:
        call = journal.find(self._attempt.scope, CallKind.ONCE, 0, self._key)
        if call is not None and call.state == CallState.DONE:
            return self._loaded(call)
        call = self._started(journal, call)
        await journal.begin(call)
        path = joined(self._attempt.scope, f"/once:{clean(self._key)}")
        try:
            with inside_scope(Scope(journal, path, call_key=f"{self._attempt.agent_id}:{path}")):
                value, canceled = await self._call()
            if halted := journal.halts.inside(path):  # the value is that of a run that was stopped
                raise halted
            call.output = self._stored(value)
        except Exception as error:
            call.state, call.error = CallState.FAILED, one_line(error)
            journal.finish_soon(call)
            raise
        call.state = CallState.DONE
        await journal.finish(call)
        if canceled is not None:
            raise canceled
        return self._loaded(call)

    async def _call(self) -> tuple[Any, asyncio.CancelledError | None]:
        """Call the function; return its result, and the cancellation that arrived while a thread was calling it."""
        if inspect.iscoroutinefunction(self._function):
            return await self._function(), None
        # A thread cannot be stopped: its side effect is recorded before the cancellation continues.
        thread = asyncio.ensure_future(sync_to_async(call_in_thread)(self._function))
        canceled = None
        try:
            await asyncio.shield(thread)
        except asyncio.CancelledError as error:
            canceled = error
            await asyncio.wait({thread})
        value = thread.result()
        return (await value if inspect.isawaitable(value) else value), canceled

    def _started(self, journal: Journal, call: AgentCall | None) -> AgentCall:
        name, attempt = _name_of(self._function), journal.attempt
        digest = digest_of(name)
        if call is None:
            call = journal.new_call(self._attempt.scope, CallKind.ONCE, 0, self._key, name=self._key, digest=digest)
        call.has_changed = call.digest != digest
        call.arguments = {"function": name}
        call.state, call.error, call.finished_at, call.started_at = CallState.STARTED, "", None, timezone.now()
        call.attempt, call.fence = attempt.number, attempt.fence
        return call

    def _stored(self, value: Any) -> Any:
        try:
            return self._form.stored(value, self._source)
        except ResultError as error:
            raise ResultError(
                f"{str(error).rstrip('.')}. The side effect has happened, but its result is not recorded, so another "
                "attempt repeats it."
            ) from error

    def _loaded(self, call: AgentCall) -> Any:
        try:
            return self._form.loaded(call.output)
        except TypeChanged as error:
            raise ResultError(
                f"{self._source} has a recorded result that does not fit {self._form.type_name} ({error}). Restore the "
                "type, or use another key, by which the side effect happens again."
            ) from error

    def _result_form(self, result_type: Any) -> ResultForm:
        declared = self._annotation() if result_type is UNSET else result_type
        try:
            return ResultForm(type(None) if declared is None else declared, TypeAdapter(declared))
        except (PydanticUserError, PydanticUndefinedAnnotation) as error:
            raise InvalidOption(f"{self._source}: a result of type {declared!r} cannot be stored.") from error

    def _annotation(self) -> Any:
        function: Any = self._function
        while isinstance(function, partial):
            function = function.func
        if isinstance(function, type):
            return function
        if not (inspect.isroutine(function) or inspect.ismethod(function)):
            function = type(function).__call__
        problem = "is unknown"
        try:
            hints = get_type_hints(function, include_extras=True)
            if "return" in hints:
                found = hints["return"]
                is_awaitable = get_origin(found) in (Awaitable, Coroutine) and get_args(found)
                return get_args(found)[-1] if is_awaitable else found
        except Exception as error:  # noqa: BLE001  # annotations are evaluated and may raise anything
            problem = f"cannot be resolved ({error})"
        raise InvalidOption(
            f"{self._source}: the type of the result of {_name_of(self._function)} {problem}. Annotate the function's "
            "result, or pass result_type, such as result_type=Invoice (None for no result). Nothing was called."
        )

    def _check_no_transaction(self) -> None:
        blocks = connections[database()].atomic_blocks
        if blocks and not getattr(blocks[-1], "_from_testcase", False):  # a test's own is left when the test is over
            raise TransactionManagementError(
                f"{self._source} is called inside of `transaction.atomic()`. Its record is committed at once, and "
                "would remain if the transaction were rolled back: call it outside of the block."
            )


@dataclass(slots=True)
class _Use:
    """The use of a key in this attempt."""

    captured: tuple[Any, ...]
    running: Future[None] | None = None


class _Keys:
    """The keys that an attempt (in a pipeline: a try of a step) has used."""

    def __init__(self) -> None:
        self._uses: dict[tuple[str, str], _Use] = {}
        self._lock = threading.Lock()  # sync steps and tools call from threads

    def claim(self, place: tuple[str, str], function: Any, source: str) -> Future[None] | None:
        """Return None if the caller may proceed, or the future of the call that uses the key now."""
        if place in _held.get():
            raise InvalidOption(f"{source} is called inside of itself; give the inner call another key.")
        captured = _captured(function)
        with self._lock:
            use = self._uses.setdefault(place, _Use(captured))
            if not _is_same(use.captured, captured):
                raise InvalidOption(
                    f"{source} is called with {_name_of(function)} and its values, but this attempt has used the key "
                    "for another function or other values. Each side effect needs its own key, such as "
                    "f'pay:{order.pk}'. Nothing was called."
                )
            if use.running is None:
                use.running = Future()
                return None
            return use.running

    def release(self, place: tuple[str, str]) -> None:
        """Let the next caller proceed."""
        with self._lock:
            use = self._uses[place]
            running, use.running = use.running, None
        if running is not None:
            running.set_result(None)


_keys: WeakKeyDictionary[OwningAttempt, _Keys] = WeakKeyDictionary()
_keys_lock = threading.Lock()
_held: ContextVar[frozenset[tuple[str, str]]] = ContextVar("agentexec_once", default=frozenset())


def _keys_of(attempt: OwningAttempt) -> _Keys:
    with _keys_lock:
        return _keys.setdefault(attempt, _Keys())


@contextmanager
def _holding(place: tuple[str, str]) -> Iterator[None]:
    token = _held.set(_held.get() | {place})
    try:
        yield
    finally:
        _held.reset(token)


def _name_of(function: Any) -> str:
    while isinstance(function, partial):
        function = function.func
    module = getattr(function, "__module__", type(function).__module__)
    return f"{module}.{getattr(function, '__qualname__', type(function).__qualname__)}"


def _captured(function: Any) -> tuple[Any, ...]:
    """Return the code of a function and the values that it brings along, for a comparison with a later call."""
    if isinstance(function, partial):
        return (*_captured(function.func), *function.args, *sorted(function.keywords.items()))
    if inspect.ismethod(function):
        return (function.__func__, function.__self__)
    if not inspect.isfunction(function):
        return (function,)
    values: list[Any] = [function.__code__, *(function.__defaults__ or ())]
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # a variable without a value
            values.append(cell.cell_contents)
    return tuple(values)


def _is_same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return len(one) == len(other) and all(map(_is_equal, one, other))


def _is_equal(one: Any, other: Any) -> bool:
    if one is other:
        return True
    return type(one) is type(other) and isinstance(one, Hashable) and bool(one == other)
