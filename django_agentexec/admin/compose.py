"""The form of a conversation's page that enqueues its next turn: a copy of the latest turn with another message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import Q
from django.http import HttpRequest
from django.utils.translation import gettext as _

from .. import activity as activities
from ..exceptions import InvalidOption
from ..models import Activity, Conversation, ConversationItem
from ..tasks.authorization import check_authorized
from ..tasks.definition import AnyTask
from .access import visible
from .copies import may_copy, task_of

MAX_MESSAGE = 20_000  # characters
LOOK_BACK = 5  # latest turns that are tried as the template of the next turn
MAX_COPIED = 50  # latest items of a fork that are searched for these turns


@dataclass(frozen=True)
class Composer:
    """The task, the field and the template with which the next message is enqueued."""

    task: AnyTask
    field: str
    """The field of the context that contains the message."""
    latest: Activity
    """The template: the turn whose context is copied."""

    def send(self, request: HttpRequest, conversation: Conversation, text: str) -> None:
        """Enqueue a turn with this message. Raises the exceptions of an enqueue, and `NotAuthorized`.

        The turn has the metadata of its template, so it belongs to the same tenant. It starts when earlier turns have
        ended.
        """
        if not text.strip() or len(text) > MAX_MESSAGE:
            raise InvalidOption(_("A message has 1 to %(maximum)s characters.") % {"maximum": f"{MAX_MESSAGE:,}"})
        context = self.task.parse_context({**self.latest.context, self.field: text})
        check_authorized(self.task, request.user, context, self.latest.metadata)
        with activities.acting_as(request.user):
            self.task.enqueue(
                context,
                metadata=self.latest.metadata,
                priority=self.latest.priority,
                queue=self.latest.queue,
                conversation=conversation,
            )


def composer_of(request: HttpRequest, conversation: Conversation, *, monitors: bool) -> Composer | None:
    """Return the composer of the next message, or None if the user cannot write one.

    The template is the latest turn with a field that contains the user's message to the agent. One query, and at most
    three for each turn that is tried.
    """
    rows = visible(request, Activity.objects.all()).filter(
        Q(conversation_id=conversation.pk) | Q(pk__in=_copied_turns(conversation))
    )
    for row in rows.defer("result", "traceback").order_by("-agent_id")[:LOOK_BACK]:
        task = task_of(row)
        if task is None or not may_copy(request, row, monitors=monitors):
            continue
        field = _message_field(row, task)
        if field:
            return Composer(task, field, row)
    return None


def _copied_turns(conversation: Conversation) -> set[UUID]:
    """Return the latest activities of the original conversation whose items were copied into a fork."""
    latest = conversation.items.filter(activity__isnull=False).order_by("-position", "-id")
    return {agent_id for agent_id in latest.values_list("activity_id", flat=True)[:MAX_COPIED] if agent_id}


def _said(content: Any) -> Any:
    """Return the text of a message, which may consist of parts."""
    if not isinstance(content, list):
        return content
    return "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))


def _message_field(row: Activity, task: AnyTask) -> str:
    context: Any = row.context
    if not isinstance(context, Mapping):
        return ""
    known = task.context_type.model_fields
    texts: dict[str, str] = {name: value for name, value in context.items() if name in known and isinstance(value, str)}
    own = ConversationItem.objects.filter(activity_id=row.pk, item__role="user").order_by("position", "id")
    first = own.values_list("item", flat=True).first()
    said = _said(first.get("content")) if isinstance(first, Mapping) else None
    same = [name for name, value in texts.items() if value == said]
    if len(same) == 1:
        return same[0]
    return next(iter(texts)) if len(texts) == 1 and first is None else ""
