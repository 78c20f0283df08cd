"""Writes of conversations by attempts: under the fence, in one transaction with the activity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..activity.transitions import OwnedOperation
from ..bulk_sql.fields import Insert, Update
from ..models import Activity, ActivityLog, Conversation, ConversationItem, ConversationTurn
from ..models.conversations import append_items


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginTurn(OwnedOperation):
    """The first use of a conversation by an activity: fixes the history that all its attempts see."""

    update_fields = ("updated_at",)

    turn: ConversationTurn

    def apply(self, activity: Activity, now: datetime) -> ActivityLog | None:
        self.check_owner(activity)
        activity.updated_at = now
        return None

    def related_writes(self, activity: Activity, now: datetime) -> Sequence[Insert | Update]:
        return [Insert(ConversationTurn, [self.turn])]


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteTurn(OwnedOperation):
    """Changes of a conversation by a turn, all of them or none."""

    update_fields = ("updated_at",)

    turn: ConversationTurn
    new: Sequence[tuple[str, Any]] = ()
    """The keys and contents of new items."""
    dropped_keys: Sequence[str] = ()
    """The keys of items of the turn, written by an earlier attempt or now taken back, that are deleted."""
    removed: Sequence[int] = ()
    """The primary keys of earlier items that become invisible, except for later attempts of the turn."""
    restored: Sequence[int] = ()
    """The primary keys of earlier items that become visible again."""

    def apply(self, activity: Activity, now: datetime) -> ActivityLog | None:
        self.check_owner(activity)
        activity.updated_at = now
        return None

    def save_related(self, activity: Activity, now: datetime) -> None:
        using, turn = str(activity._state.db), self.turn
        items = ConversationItem.objects.using(using).filter(conversation_id=turn.conversation_id).order_by()
        if self.dropped_keys:
            items.filter(activity_id=turn.activity_id, key__in=self.dropped_keys).delete()
        if self.removed:
            items.filter(pk__in=self.removed, removed_by=None).update(removed_by=turn.pk)
        if self.restored:
            items.filter(pk__in=self.restored, removed_by=turn.pk).update(removed_by=None)
        conversations = Conversation.objects.using(using).filter(pk=turn.conversation_id)
        if not conversations.update(updated_at=now):
            return  # deleted meanwhile
        rows = [
            ConversationItem(activity_id=turn.activity_id, key=key, item=item, created_at=now) for key, item in self.new
        ]
        append_items(using, turn.conversation_id, rows)
