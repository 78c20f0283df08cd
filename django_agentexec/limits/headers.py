"""Headers of successful answers: a limit that the provider reports as used up is closed before it refuses a call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from .refusals import used_up_for

if TYPE_CHECKING:
    from .gate import Grant

_current: ContextVar[Grant | None] = ContextVar("agentexec_grant", default=None)


@contextmanager
def granted(grant: Grant) -> Iterator[None]:
    """Let `note_headers` close the limits of this grant while the request is sent."""
    token = _current.set(grant)
    try:
        yield
    finally:
        with suppress(ValueError):  # a context manager may end in another task than it began
            _current.reset(token)


async def note_headers(response: Any) -> None:
    """Close the closest limit of the call in progress if the headers of its response say that it is used up.

    A hook for HTTP clients of your own: `DefaultAsyncHttpxClient(event_hooks={"response": [note_headers]})`. Clients of
    `AsyncOpenAI` have it in workers already.
    """
    grant = _current.get()
    if grant is None or response.status_code >= 400:
        return  # a refusal closes the limit when its error arrives
    seconds = used_up_for(response.headers, grant.reservation.request.tokens)
    if seconds:
        await grant.close(seconds)


def observe(client: Any) -> None:
    """Add the hook to the HTTP client of an `AsyncOpenAI`, once; other clients are left as they are."""
    http_client: Any = getattr(client, "_client", None)
    hooks = getattr(http_client, "event_hooks", None)
    if not isinstance(hooks, dict) or not hasattr(http_client, "aclose"):
        return
    known = hooks.get("response", [])
    if note_headers not in known:
        http_client.event_hooks = {**hooks, "response": [*known, note_headers]}
