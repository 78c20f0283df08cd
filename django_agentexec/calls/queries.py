"""Queries of recorded calls: a page of them, a single one, and the tree of an activity's trace."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db.models import Exists, OuterRef, QuerySet
from pydantic import Field, computed_field
from pydantic_core import to_json

from ..models import Activity, ActivityQuerySet, AgentCall, Approval, CallKind, CallState, Status
from ..schemas import Schema
from .content import content_of, error_of
from .paths import call_around, inside_call

MAX_CALLS = 1_000  # of a tree
MAX_PAGE = 4_000_000  # bytes of content as JSON, after which a page ends
CHUNK = 50  # calls whose content is loaded at once
CONTENT = ("request", "arguments", "output")
_SEPARATORS = "~^+/"


class CallSummarySchema(Schema):
    """A run of an agent, or a call of a model or tool, without its content."""

    id: UUID
    path: str
    """The place of its run within the handler."""
    kind: CallKind
    ordinal: int
    """The number of the model call within its run, from 0; of a tool call, that of the model call that requested it."""
    call_id: str
    """The id that the model gave a tool call; `try 1` and so on of failed calls of models before an answer."""
    agent: str
    name: str
    """The name of the model or tool."""
    state: CallState
    is_replayed: bool
    """Whether it was made by an earlier attempt, or before a wait, and its output was or will be used again."""
    has_changed: bool
    """Whether a later attempt made another request at this place."""
    is_set_aside: bool
    """Whether a fresh retry has replaced it."""
    attempt: int
    started_at: datetime
    finished_at: datetime | None
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cost: Decimal | None
    """US dollars; null: no price is known."""
    is_cached: bool
    """Whether a cached answer of a model, or the first result of an idempotent tool, was used."""
    error: str = ""
    public_error: str = ""
    """The error for users without the monitor permission."""

    @computed_field  # type: ignore[prop-decorator]  # pydantic's documented form
    @property
    def duration(self) -> float | None:
        """Seconds from its start to its end; null while it runs, and if its process died at an unknown time."""
        if self.finished_at is None or self.finished_at == self.started_at:
            return None
        return (self.finished_at - self.started_at).total_seconds()


class CallSchema(CallSummarySchema):
    """A call with its content."""

    parent_id: UUID | None = None
    """The run that made it, or the tool call in which the run began; null at the top."""
    arguments: Any = None
    """The arguments of a tool, or the input of a run."""
    output: Any = None
    """The answer of the model, the output of the tool, or the final output of the run."""
    hidden: list[str] = Field(default_factory=list)
    """The fields that are stored and not shown: by `TRACE_CONTENT`, or since `TRACE_REDACT` failed."""


class CallDetailSchema(CallSchema):
    """A call with its content and its raw request."""

    request: Any = None
    """The request as sent to the model, if `TRACE_REQUESTS` is set; requires the monitor permission."""


class CallListSchema(Schema):
    """Calls in the order of their start."""

    items: list[CallSchema]
    has_more: bool
    """Whether there are further calls: request them with the id of the last item as `after`.

    A page ends early when its content exceeds 4 MB.
    """


def summary_of(call: AgentCall, fence: int) -> CallSummarySchema:
    """Return a call without its content; `fence` is that of its activity."""
    return CallSummarySchema.model_validate(_values(call, fence))


def page_of_calls(
    activity: Activity,
    calls: QuerySet[AgentCall],
    size: int,
    *,
    monitors: bool,
    with_content: bool,
    max_bytes: float = MAX_PAGE,
) -> CallListSchema:
    """Return the first `size` of an activity's calls, or fewer: a page ends when its content exceeds `max_bytes`.

    At most two queries, and with content one for each `CHUNK` calls.
    """
    found = list(calls.defer(*CONTENT)[: size + 1])
    rows, parents = found[:size], Parents(parents_of(found[:size]))
    items, length = list[CallSchema](), 0
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        if with_content:
            _load_content(chunk)
        for call in chunk:
            content = _content(call, ("arguments", "output"), monitors=monitors) if with_content else {}
            items.append(CallSchema(**_values(call, activity.fence), parent_id=parents.of(call), **content))
            length += len(to_json(content)) if with_content else 0
            if length > max_bytes:
                return CallListSchema(items=items, has_more=len(items) < len(found))
    return CallListSchema(items=items, has_more=len(found) > size)


def _load_content(calls: Sequence[AgentCall]) -> None:
    """Load arguments and outputs of calls; one query."""
    stored = AgentCall.objects.using(calls[0]._state.db).filter(pk__in=[call.pk for call in calls])
    values = {pk: (arguments, output) for pk, arguments, output in stored.values_list("pk", "arguments", "output")}
    for call in calls:
        call.arguments, call.output = values.get(call.pk, (None, None))  # pruned in the meantime


def detail_of(activity: Activity, call: AgentCall, *, monitors: bool) -> CallDetailSchema:
    """Return a call with its content and raw request. At most two queries."""
    content = _content(call, CONTENT, monitors=monitors)
    parent_id = Parents(parents_of([call])).of(call)
    return CallDetailSchema(**_values(call, activity.fence), parent_id=parent_id, **content)


def is_replayed(call: AgentCall, fence: int) -> bool:
    """Return whether a call was made under an earlier claim and is replayed under `fence`."""
    return call.fence != fence and not call.set_aside and call.state in (CallState.DONE, CallState.REJECTED)


def _values(call: AgentCall, fence: int) -> dict[str, Any]:
    own = CallSummarySchema.model_fields.keys() - {"is_replayed", "is_set_aside", "error", "public_error"}
    content = content_of(call, monitors=True, fields=())
    return {
        **{name: getattr(call, name) for name in own},
        "is_replayed": is_replayed(call, fence),
        "is_set_aside": bool(call.set_aside),
        "error": content.error,
        "public_error": content.public_error,
    }


def _content(call: AgentCall, fields: tuple[str, ...], *, monitors: bool) -> dict[str, Any]:
    content = content_of(call, monitors=monitors, fields=fields)
    return {**{name: getattr(content, name) for name in fields}, "hidden": list(content.hidden)}


def parents_of(calls: Sequence[AgentCall]) -> list[AgentCall]:
    """Return the rows among which the parents of these calls of one activity are.

    At most two queries, which find the rows by their places, however many calls the activity has.
    """
    if not calls:
        return []
    places = [_parent_place(call) for call in calls]
    runs = {path for kind, path in places if kind == CallKind.AGENT}
    around = [call_around(path) for kind, path in places if kind == CallKind.TOOL and "/" in path]
    rows = AgentCall.objects.using(calls[0]._state.db).filter(
        activity_id=calls[0].activity_id, set_aside__in={call.set_aside for call in calls}
    )
    rows = rows.only("id", "path", "kind", "ordinal", "call_id", "set_aside").order_by()
    found = list(rows.filter(kind=CallKind.AGENT, path__in=runs)) if runs else []
    if around:
        tools = rows.filter(kind=CallKind.TOOL)
        known = [place for place in around if place is not None]
        if len(known) == len(around):  # otherwise a path is so long that it ends in a digest
            tools = tools.filter(path__in={path for path, _ in known}, ordinal__in={number for _, number in known})
        found += tools
    return found


def _parent_place(call: AgentCall) -> tuple[CallKind, str]:
    """Return the kind of a call's parent, and the path of that run, or the path inside that tool call."""
    if call.kind in (CallKind.MODEL, CallKind.TOOL):
        return CallKind.AGENT, call.path
    if call.kind == CallKind.ONCE:
        return CallKind.TOOL, call.path
    head, separator = _split(call.path)
    if separator in ("^", "+"):  # next to the calls of a run
        return CallKind.AGENT, head
    return CallKind.TOOL, head if separator == "~" else call.path


class Parents:
    """Finds the parents of calls by their paths."""

    def __init__(self, calls: Iterable[AgentCall]) -> None:
        self._runs: dict[tuple[int, str], UUID] = {}
        self._tools: dict[tuple[int, str], UUID] = {}
        for call in calls:
            if call.kind == CallKind.AGENT:
                self._runs[call.set_aside, call.path] = call.id
            elif call.kind == CallKind.TOOL:
                self._tools[call.set_aside, inside_call(call.path, call.ordinal, call.call_id)] = call.id

    def of(self, call: AgentCall) -> UUID | None:
        """Return the id of the run that made a call, or of the tool call in which a run began."""
        kind, path = _parent_place(call)
        return (self._runs if kind == CallKind.AGENT else self._tools).get((call.set_aside, path))

    def of_request(self, approval: Approval) -> UUID | None:
        """Return the id of the run that waits for a decision."""
        return self._runs.get((0, approval.path))


def _split(path: str) -> tuple[str, str]:
    """Return what precedes the last segment of a path, and its separator ("" if the path has no segments)."""
    at = max(path.rfind(separator) for separator in _SEPARATORS)
    return (path[:at], path[at]) if at >= 0 else (path, "")


@dataclass
class Node:
    """A call in the tree."""

    call: AgentCall
    state: str
    """`done`, `failed`, `in_doubt`, `rejected`, `running`, `waiting`, or `interrupted`: started and not ended."""
    is_replayed: bool
    error: str
    children: list[Node] = field(default_factory=list)
    tokens: int = 0
    cost: Decimal | None = None
    approval: Approval | None = None
    """The pending decision for which the call waits."""

    def __iter__(self) -> Iterator[Node]:
        yield self
        for child in self.children:
            yield from child

    @property
    def step(self) -> str:
        """The step of a pipeline in which it began, or ""."""
        at = min((found for each in _SEPARATORS if (found := self.call.path.find(each)) >= 0), default=None)
        return self.call.path[:at]


@dataclass
class Trace:
    """The calls of an activity as trees."""

    roots: list[Node]
    """Runs and side effects that the next attempt would replay."""
    earlier: list[list[Node]]
    """Those that were set aside, the latest first."""
    count: int
    has_more: bool
    """Whether there are calls after the first `MAX_CALLS`."""

    def __iter__(self) -> Iterator[Node]:
        for root in (*self.roots, *(node for nodes in self.earlier for node in nodes)):
            yield from root


def trace_of(activity: Activity) -> Trace:
    """Return the calls of an activity as trees, without their content. Two queries."""
    rows = list(AgentCall.objects.of(activity.agent_id).defer(*CONTENT)[: MAX_CALLS + 1])
    calls, has_more = rows[:MAX_CALLS], len(rows) > MAX_CALLS
    pending = list(Approval.objects.of(activity.agent_id).pending()) if activity.is_suspended else []
    nodes = {call.id: _node(activity, call) for call in calls}
    parents = Parents(calls)
    tops: dict[int, list[Node]] = defaultdict(list)
    for call in calls:
        parent = nodes.get(parents.of(call) or call.id)
        if parent is None or parent.call is call:
            tops[call.set_aside].append(nodes[call.id])
        else:
            parent.children.append(nodes[call.id])
    for approval in pending:
        _add_request(activity, approval, nodes, nodes.get(parents.of_request(approval) or approval.id))
    for roots in tops.values():
        for root in roots:
            _sum(root)
    earlier = [tops[number] for number in sorted(tops, reverse=True) if number]
    return Trace(tops.get(0, []), earlier, len(calls), has_more)


def select(nodes: Sequence[Node], kinds: Sequence[str] = (), states: Sequence[str] = ()) -> list[Node]:
    """Return the trees reduced to calls of these kinds or states, with the nodes above them."""
    found = []
    for node in nodes:
        children = select(node.children, kinds, states)
        if children or node.call.kind in kinds or node.state in states:
            found.append(
                Node(
                    node.call, node.state, node.is_replayed, node.error, children, node.tokens, node.cost, node.approval
                )
            )
    return found


def _node(activity: Activity, call: AgentCall) -> Node:
    node = Node(call, _state(activity, call), is_replayed(call, activity.fence), error_of(call))
    node.tokens, node.cost = call.input_tokens + call.output_tokens, call.cost
    return node


def _state(activity: Activity, call: AgentCall) -> str:
    if call.state != CallState.STARTED:
        return str(call.state)
    if call.set_aside or activity.status != Status.RUNNING:
        return "interrupted"
    if activity.is_suspended:
        return "waiting"
    # A run continues in each attempt; a call that another process has started is made again.
    return "running" if call.kind == CallKind.AGENT or call.fence == activity.fence else "interrupted"


def _add_request(activity: Activity, approval: Approval, nodes: dict[UUID, Node], parent: Node | None) -> None:
    """Add a tool call that waits for a decision: unless it was started before, it has no row yet."""
    if parent is None:
        return
    for child in parent.children:
        if child.call.kind == CallKind.TOOL and child.call.call_id == approval.call_id:
            child.state, child.approval = "waiting", approval
            return
    call = AgentCall(
        id=approval.id,
        activity_id=activity.agent_id,
        path=approval.path,
        kind=CallKind.TOOL,
        call_id=approval.call_id,
        agent=approval.agent,
        name=approval.tool,
        attempt=approval.attempt,
        fence=activity.fence,
        started_at=approval.requested_at,
    )
    parent.children.append(Node(call, "waiting", False, "", approval=approval))


def _sum(node: Node) -> None:
    """Set tokens and cost of runs and of tool calls with runs inside to the sums of their calls."""
    for child in node.children:
        _sum(child)
    if node.children:
        node.tokens += sum(child.tokens for child in node.children)
        costs = [child.cost for child in node.children if child.cost is not None]
        node.cost = sum(costs, node.cost or Decimal()) if costs else node.cost


def with_call(activities: ActivityQuerySet, kind: CallKind, name: str) -> ActivityQuerySet:
    """Return the activities that have called this model or tool. Uses the index of calls by name and activity."""
    calls = AgentCall.objects.using(activities.db).filter(activity_id=OuterRef("pk"), name=name, kind=kind)
    return activities.filter(Exists(calls.order_by()))
