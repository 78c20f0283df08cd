"""Breakers of models in memory: their states, and the end of a pause without a wait."""

from __future__ import annotations

from django_agentexec.queues import get_queue
from django_agentexec.queues.breakers import LocalBreakers
from django_agentexec.resilience.options import breaker_options


def states() -> dict[str, str]:
    """Return the state of each breaker, by its model."""
    return {each.name: each.state.value for each in get_queue().breakers.read(breaker_options())}


def note_call(name: str, *, ok: bool = False, reason: str = "") -> None:
    """Record the result of a call of a model; by default a failure."""
    get_queue().breakers.record(name, breaker_options(), ok=ok, reason=reason)


def end_pause(name: str) -> None:
    """Let the next call of the model be the probe of its open breaker."""
    store = get_queue().breakers
    assert isinstance(store, LocalBreakers)
    store._breakers[name].until = 0
