"""The items of a conversation as turns: messages of people, and answers of agents with their tools folded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..conversations.history import OUTPUT_OF, OUTPUTS
from ..models import Activity, AgentCall, CallKind, ConversationItem, Status
from .approval_cards import Card
from .formatting import compact, duration, moment, money, pretty_json, span, total_tokens
from .markdown import render
from .status import badge, short_id

MAX_TEXT = 20_000  # characters of a message on the page; the export has all
MAX_TOOL = 2_000  # characters of the arguments or the output of a tool


@dataclass
class Tool:
    """A call of a tool, with its output as soon as there is one."""

    name: str
    arguments: str
    output: str | None = None


@dataclass
class Turn:
    """Consecutive items of the same writer."""

    role: str
    """`user`, `agent`, or `note` for instructions."""
    author: str
    at: SafeString
    activity_id: UUID | None
    last_item: int | None = None
    """The id of its last item, up to which a fork copies the conversation."""
    texts: list[SafeString] = field(default_factory=list)
    tools: list[Tool] = field(default_factory=list)
    foot: Foot | None = None
    cards: Sequence[Card] = ()
    """The decisions that its activity waits for."""

    @property
    def key(self) -> str:
        """Names the turn in the page, also after further items."""
        return f"{self.role}-{self.activity_id or self.at}"

    @property
    def is_active(self) -> bool:
        """Whether its activity is running, and this turn is its latest."""
        return self.foot is not None and self.foot.activity.status == Status.RUNNING

    @property
    def tools_text(self) -> str:
        """The summary of the folded tools."""
        names = ", ".join(dict.fromkeys(tool.name for tool in self.tools))
        count = len(self.tools)
        text = ngettext("%(count)s tool call: %(names)s", "%(count)s tool calls: %(names)s", count)
        return text % {"count": count, "names": names}


@dataclass(frozen=True)
class Foot:
    """The activity of a turn, in one line."""

    activity: Activity
    badge: SafeString
    label: str
    facts: str
    is_retried: bool


def turns_of(items: Sequence[ConversationItem], activities: Mapping[UUID, Activity]) -> list[Turn]:
    """Return the turns of a conversation. `activities` are those that the user may see."""
    names, turns = _agent_names(activities), list[Turn]()
    calls: dict[str, Tool] = {}
    for row in items:
        role = _role(row.item)
        turn = turns[-1] if turns else None
        if turn is None or (turn.role, turn.activity_id) != (role, row.activity_id) or role == "user":
            turn = Turn(role, _author(role, row, names), moment(row.created_at), row.activity_id)
            turns.append(turn)
        turn.last_item = row.pk
        _add(turn, row.item, calls)
    _add_feet(turns, activities)
    return turns


def open_turns(activities: Iterable[Activity], turns: Sequence[Turn]) -> list[Turn]:
    """Return turns for those activities of a conversation that have not answered, in the order of their enqueue."""
    answered = {turn.activity_id for turn in turns if turn.role == "agent"}
    found = []
    for row in activities:
        if row.agent_id not in answered:
            turn = Turn("agent", row.agent_type, moment(row.created_at), row.agent_id, foot=_foot(row))
            found.append(turn)
    return found


def _add_feet(turns: Sequence[Turn], activities: Mapping[UUID, Activity]) -> None:
    """Add the foot to the last answer of each activity."""
    last = {turn.activity_id: turn for turn in turns if turn.role == "agent" and turn.activity_id is not None}
    for agent_id, turn in last.items():
        if agent_id in activities:
            turn.foot = _foot(activities[agent_id])


def _foot(row: Activity) -> Foot:
    tokens = total_tokens(row.usage)
    facts = [
        duration(span(row.started_at, row.finished_at)),
        ngettext("%(tokens)s token", "%(tokens)s tokens", tokens) % {"tokens": compact(tokens)} if tokens else "",
        money(row.cost) if row.cost is not None else "",
    ]
    label = f"{row.agent_type} {short_id(row)}"
    return Foot(row, badge(row), label, " · ".join(filter(None, facts)), row.attempt > 1)


def _agent_names(activities: Mapping[UUID, Activity]) -> dict[UUID, str]:
    """Return the name of the first agent of each activity; one query."""
    runs = AgentCall.objects.current().filter(activity_id__in=list(activities), kind=CallKind.AGENT, path="")
    return {agent_id: name for agent_id, name in runs.values_list("activity_id", "agent") if name}


def _role(item: Mapping[str, Any]) -> str:
    role = item.get("role")
    if role == "user":
        return "user"
    return "note" if role in ("system", "developer") else "agent"


def _author(role: str, row: ConversationItem, names: Mapping[UUID, str]) -> str:
    if role == "user":
        return _("User")
    if role == "note":
        return _("Instruction")
    return (names.get(row.activity_id) if row.activity_id else None) or _("Agent")


def _add(turn: Turn, item: Mapping[str, Any], calls: dict[str, Tool]) -> None:
    kind, call_id = str(item.get("type")), str(item.get("call_id") or item.get("id") or "")
    if kind in OUTPUTS:
        if call_id in calls:
            calls[call_id].output = _text(item.get("output"))[:MAX_TOOL]
    elif kind in OUTPUT_OF or kind.endswith("_call"):
        arguments = item.get("arguments") or item.get("input") or item.get("action") or item.get("operation") or ""
        tool = Tool(str(item.get("name") or kind), _text(arguments)[:MAX_TOOL])
        if kind not in OUTPUT_OF:
            tool.output = ""  # executed by the provider
        calls[call_id] = tool
        turn.tools.append(tool)
    elif text := _content(item).strip():
        turn.texts.append(render(text[:MAX_TEXT] + ("…" if len(text) > MAX_TEXT else "")))


def _content(item: Mapping[str, Any]) -> str:
    """Return the text of a message; other parts are named by their type."""
    if item.get("type") == "reasoning":
        return ""
    content = item.get("content")
    if isinstance(content, list):
        return "\n\n".join(_part(part) for part in content)
    return content if isinstance(content, str) else _text(content if content is not None else dict(item))


def _part(part: Any) -> str:
    if isinstance(part, Mapping):
        text = part.get("text") or part.get("refusal")
        return text if isinstance(text, str) else f"[{part.get('type', '')}]"
    return _text(part)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else pretty_json(value)
