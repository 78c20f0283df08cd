"""The trace context: traceparents, and the places of spans."""

from __future__ import annotations

import sys
from uuid import uuid4

import pytest

from django_agentexec.current import current_traceparent
from django_agentexec.models import AgentCall, CallKind
from django_agentexec.telemetry.context import (
    continued,
    key_inside,
    key_of_run,
    parent_key,
    span_id_of,
)

trace = pytest.importorskip("opentelemetry.trace")
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_traceparent_survives_the_way_into_the_handler() -> None:
    assert current_traceparent() == ""
    with continued(PARENT):
        assert current_traceparent() == PARENT
    assert current_traceparent() == ""


@pytest.mark.parametrize(
    "traceparent", ["", "no traceparent", PARENT.replace("0af7", "xxxx"), f"00-{'0' * 32}-{'0' * 16}-01"]
)
def test_an_invalid_traceparent_is_ignored(traceparent: str) -> None:
    with continued(traceparent):
        assert current_traceparent() == ""


def test_nothing_is_imported_where_opentelemetry_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with continued(PARENT):
        monkeypatch.delitem(sys.modules, "opentelemetry.trace")
        assert current_traceparent() == ""
        assert "opentelemetry.trace" not in sys.modules
        monkeypatch.undo()


@pytest.mark.parametrize(
    ("kind", "path", "parent"),
    [
        (CallKind.MODEL, "~2", key_of_run("~2")),
        (CallKind.TOOL, "/0:1", key_of_run("/0:1")),
        (CallKind.AGENT, "", None),
        (CallKind.AGENT, "~2", None),
        (CallKind.AGENT, "research", None),
        (CallKind.AGENT, "research~key=summary", None),
        (CallKind.AGENT, "/0:call_1", key_inside("/0:call_1")),
        (CallKind.AGENT, "/0:call_1~2", key_inside("/0:call_1")),
        (CallKind.AGENT, "research~2/0:1/3:2~Writer-x:1f2e3d4c#0", key_inside("research~2/0:1/3:2")),
        (CallKind.AGENT, "^Guard:1f2e3d4c#0", key_of_run("")),
        (CallKind.AGENT, "~2/0:1^Guard:1f2e3d4c#0", key_of_run("~2/0:1")),
        (CallKind.AGENT, "~2+recovery", key_of_run("~2")),
        (CallKind.AGENT, "/once:invoice", key_inside("/once:invoice")),
        (CallKind.ONCE, "", None),
    ],
)
def test_a_call_knows_the_place_of_its_parent(kind: CallKind, path: str, parent: str | None) -> None:
    assert parent_key(AgentCall(kind=kind, path=path)) == parent


def test_ids_of_spans_differ_between_places_and_attempts() -> None:
    agent_id = uuid4()
    ids = {span_id_of(agent_id, attempt, key) for attempt in (1, 2) for key in (key_of_run(""), key_inside(""))}
    assert len(ids) == 4
    assert all(0 < each < 2**64 for each in ids)
    assert span_id_of(agent_id, 1, "a") == span_id_of(agent_id, 1, "a")
