"""`idempotent_tool`: a tool with the same arguments returns its first result in a run, conversation or tenant.

Results are rows, so they survive a crash, and a unique key decides which of several workers makes the call. A call in
progress needs no separate lease: it belongs to the claim of its activity.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial, wraps
from typing import Any, ParamSpec, Protocol, TypeVar, get_args, get_origin, get_type_hints, overload
from uuid import UUID, uuid4

from asgiref.sync import sync_to_async
from django.db import IntegrityError, transaction
from django.utils import timezone
from pydantic import TypeAdapter
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError

from ..activity.store import database
from ..calls.paths import digest_of
from ..calls.position import innermost_scope
from ..current import OwningAttempt, current_attempt
from ..exceptions import InvalidOption, ResultError
from ..models import Activity, Status, ToolResult
from ..models.tool_results import MAX_TOOL
from ..parsing import as_seconds
from ..policy import get_policy
from ..serialization.results import ResultForm, TypeChanged
from ..threads import call as call_in_thread

P = ParamSpec("P")
T = TypeVar("T")

SCOPES = ("run", "conversation", "tenant")
MAX_TTL = 1_000_000_000.0
MIN_LIFETIME = timedelta(days=1)
"""How long the row of a call is kept at least while the call is in progress."""
FIRST_POLL, MAX_POLL = 0.05, 1.0
"""Seconds between two looks at a call that another worker makes."""
_sleep = asyncio.sleep
_FRAMEWORKS = ("agents", "pydantic_ai")
"""Packages whose objects are the context of a call, and no arguments."""


class IdempotentTool(Protocol):
    """The decorator that `idempotent_tool` returns."""

    @overload
    def __call__(self, function: Callable[P, Awaitable[T]], /) -> Callable[P, Coroutine[Any, Any, T]]: ...
    @overload
    def __call__(self, function: Callable[P, T], /) -> Callable[P, Coroutine[Any, Any, T]]: ...


def idempotent_tool(*, ttl: float | timedelta, scope: str = "run", key: str | None = None) -> IdempotentTool:
    """Let calls of a tool with the same arguments return the first result for `ttl` seconds.

        @function_tool
        @idempotent_tool(ttl=3600, scope="conversation")
        async def create_ticket(title: str) -> str: ...

    `scope` is `run` (one activity, with all its attempts), `conversation`, or `tenant` (the `keys` of a
    `TenantPolicy`). Of concurrent calls, one executes the function and the others wait for its result. A call that
    raises is not kept. `key` identifies the tool, by default its module and name.

    The decorated function is a coroutine function; a plain function runs in a thread. Results must be JSON that loads
    again in the annotated type. Outside of a worker the function is called each time.

    Raises `InvalidOption` for invalid options; a call raises it for an activity without a conversation or tenant.
    """
    seconds = as_seconds(ttl)
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not 0 < seconds <= MAX_TTL:
        raise InvalidOption(f"idempotent_tool(ttl={ttl!r}) must be seconds above 0, or a timedelta.")
    if scope not in SCOPES:
        known = ", ".join(repr(name) for name in SCOPES)
        raise InvalidOption(f"idempotent_tool(scope={scope!r}) must be one of {known}.")
    if key is not None and not (isinstance(key, str) and key):
        raise InvalidOption(f"idempotent_tool(key={key!r}) must be a text, or None for the name of the function.")

    def decorate(function: Callable[P, Any]) -> Callable[P, Coroutine[Any, Any, Any]]:
        if not inspect.isroutine(function):
            raise InvalidOption(
                f"idempotent_tool decorates {function!r}, which is not a function. Write it below the decorator that "
                "makes the tool: first @function_tool, then @idempotent_tool(...)."
            )
        tool = _Tool(
            function, timedelta(seconds=seconds), scope, key or f"{function.__module__}.{function.__qualname__}"
        )

        @wraps(function)
        async def call(*args: P.args, **kwargs: P.kwargs) -> Any:
            return await tool.call(args, kwargs)

        return call

    return decorate


class _Tool:
    """A decorated function."""

    def __init__(self, function: Callable[..., Any], ttl: timedelta, scope: str, name: str) -> None:
        self._function = function
        self._ttl = ttl
        self._scope = scope
        self._name = name
        self._signature = inspect.signature(function)
        self._form: ResultForm | None = None

    async def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the first result for these arguments."""
        attempt = current_attempt()
        if attempt is None or not attempt.root.records_calls:
            return await self._executed(args, kwargs)
        form = self._result_form()
        place = digest_of(self._name, self._place(attempt), self._arguments(args, kwargs))
        claim = _Claim(place, self._name[:MAX_TOOL], attempt.agent_id, attempt.fence, self._ttl)
        pause = FIRST_POLL
        while (row := await sync_to_async(claim.take)()) is not None:
            if row.is_done:
                return self._reused(form, row)
            await _sleep(pause)
            pause = min(2 * pause, MAX_POLL)
        try:
            result = await self._executed(args, kwargs)
            output = form.stored(result, f"Tool {self._name}")
        except BaseException:
            await asyncio.shield(sync_to_async(claim.give_up)())
            raise
        await asyncio.shield(sync_to_async(claim.finish)(output))
        return result

    async def _executed(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if inspect.iscoroutinefunction(self._function):
            return await self._function(*args, **kwargs)
        # A thread cannot be stopped: the claim ends with it.
        thread = asyncio.ensure_future(asyncio.to_thread(call_in_thread, partial(self._function, *args, **kwargs)))
        try:
            value = await asyncio.shield(thread)
        except asyncio.CancelledError:
            await asyncio.wait({thread})
            raise
        return await value if inspect.isawaitable(value) else value

    def _reused(self, form: ResultForm, row: ToolResult) -> Any:
        scope = innermost_scope()
        if scope is not None:
            scope.is_reused = True
        try:
            return form.loaded(row.output)
        except TypeChanged as error:
            raise ResultError(
                f"Tool {self._name} has a stored result that does not fit {form.type_name} ({error}). Restore the "
                "type, or set another key=, by which the tool runs again."
            ) from error

    def _place(self, attempt: OwningAttempt) -> tuple[str, Any]:
        root = attempt.root
        if self._scope == "run":
            return "run", str(root.agent_id)
        tenant = get_policy().tenant_of(root.metadata)
        if self._scope == "conversation":
            if root.session_id is None:
                raise InvalidOption(
                    f"Tool {self._name} has scope='conversation', but activity {root.agent_id} has no conversation: "
                    "enqueue it with conversation=..., or use scope='run'."
                )
            # Another tenant may use the session id of a conversation that was deleted.
            return "conversation", [root.session_id, tenant and dict(tenant)]
        if not tenant:
            problem = (
                "the policy has no tenants" if tenant is None else f"activity {root.agent_id} belongs to no tenant"
            )
            raise InvalidOption(
                f"Tool {self._name} has scope='tenant', but {problem}: set AGENTEXEC['POLICY'] to a TenantPolicy and "
                "enqueue with the metadata of its keys, or use scope='run'."
            )
        return "tenant", dict(tenant)

    def _arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments by name, without the context object of an agent framework."""
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return {name: value for name, value in bound.arguments.items() if not _is_context(value)}

    def _result_form(self) -> ResultForm:
        if self._form is None:
            try:
                declared = get_type_hints(self._function, include_extras=True).get("return", Any)
                if get_origin(declared) is Awaitable:
                    (declared,) = get_args(declared)
                self._form = ResultForm(declared, TypeAdapter(declared))
            except (PydanticUserError, PydanticUndefinedAnnotation, NameError) as error:
                raise InvalidOption(f"Tool {self._name}: its results cannot be stored ({error}).") from error
        return self._form


@dataclass(frozen=True)
class _Claim:
    """The right of one call to execute a tool."""

    key: str
    tool: str
    agent_id: UUID
    fence: int
    ttl: timedelta
    token: UUID = field(default_factory=uuid4)

    def take(self) -> ToolResult | None:
        """Return None if the caller shall execute the tool, otherwise the row of the call that does or did."""
        rows = ToolResult.objects.using(database())
        while True:
            row = rows.filter(key=self.key).first()
            if row is None:
                try:
                    with transaction.atomic(using=database()):
                        rows.create(key=self.key, tool=self.tool, **self._values())
                except IntegrityError:  # another call was faster
                    if (row := rows.filter(key=self.key).first()) is None:
                        raise
                    return row
                return None
            if row.is_done and row.expires_at > timezone.now():
                return row
            if not row.is_done and self._is_alive(row):
                return row
            if rows.filter(pk=row.pk, token=row.token, is_done=row.is_done).update(**self._values()):
                return None

    def finish(self, output: Any) -> None:
        """Store the result."""
        mine = ToolResult.objects.using(database()).filter(key=self.key, token=self.token)
        mine.update(is_done=True, output=output, expires_at=timezone.now() + self.ttl)

    def give_up(self) -> None:
        """Let the next call execute the tool."""
        ToolResult.objects.using(database()).filter(key=self.key, token=self.token).delete()

    def _values(self) -> dict[str, Any]:
        now = timezone.now()
        return {
            "agent_id": self.agent_id,
            "fence": self.fence,
            "token": self.token,
            "is_done": False,
            "output": None,
            "started_at": now,
            "expires_at": now + max(self.ttl, MIN_LIFETIME),
        }

    def _is_alive(self, row: ToolResult) -> bool:
        """Return whether the attempt that makes the call still owns its activity."""
        owner = Activity.objects.using(database()).filter(agent_id=row.agent_id)
        return owner.filter(status=Status.RUNNING, fence=row.fence).exists()


def _is_context(value: object) -> bool:
    return type(value).__module__.partition(".")[0] in _FRAMEWORKS


def prune_results(batch_size: int = 1_000) -> int:
    """Delete a batch of expired results, and return their number."""
    rows = ToolResult.objects.using(database())
    expired = list(rows.filter(expires_at__lt=timezone.now()).values_list("pk", flat=True)[:batch_size])
    number, _ = rows.filter(pk__in=expired, expires_at__lt=timezone.now()).delete()
    return number
