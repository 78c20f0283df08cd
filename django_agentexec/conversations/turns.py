"""`Turn`: a conversation as one attempt of an activity sees and changes it.

A later attempt of the activity runs its handler from the beginning, and repeats its changes. It sees the history as
it was when the first attempt began to use it, followed by the items that it has itself added so far. As long as these
are the items that an earlier attempt has stored, nothing is written. At the first difference, the stored turn becomes
that of this attempt. So each item is stored once, and the turn is that of the last attempt.

Items that a turn removes stay in the table, invisible, for later attempts of the turn. A removal is written together
with the next item, or when the handler has returned: a compaction, which clears the history and adds its summary, is
one change, and a failure between the two loses nothing.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import Future

from asgiref.sync import sync_to_async
from django.db.models import Max, Q

from ..activity.store import database
from ..current import OwningAttempt
from ..models import Activity, Conversation, ConversationItem, ConversationTurn
from .history import Item
from .operations import BeginTurn, WriteTurn


class Turn:
    """The history of a conversation in an attempt; in a pipeline, in the attempt of a step."""

    def __init__(
        self, attempt: OwningAttempt, row: ConversationTurn, earlier: Sequence[ConversationItem], stored: Sequence[Item]
    ) -> None:
        self._attempt = attempt
        self._row = row
        self._earlier = list(earlier)
        self._own: list[Item] = []
        # The state of the database, as far as it concerns this turn.
        self._stored = list(stored)
        self._stored_removals = {item.pk for item in earlier if item.removed_by is not None}
        self._removals: dict[int, None] = {}
        self._follows = True  # what an earlier attempt has stored, so that nothing is written
        self._lock = threading.Lock()

    @property
    def items(self) -> list[Item]:
        """The history."""
        return [*(item.item for item in self._visible()), *self._own]

    @property
    def own_start(self) -> int:
        """The index of the first item that this attempt has added."""
        return len(self._visible())

    async def add(self, items: Sequence[Item]) -> None:
        """Append items, and wait until they are stored. Raises `StaleAttempt`."""
        with self._lock:
            self._own.extend(items)
            written = self._write_changes()
        if written is not None:
            # Shielded: the items are stored even if the task of the run is being canceled.
            await asyncio.shield(asyncio.wrap_future(written))

    def pop(self) -> Item | None:
        """Remove the last item, and return it."""
        with self._lock:
            if self._own:
                return self._own.pop()
            visible = self._visible()
            if not visible:
                return None
            self._removals[visible[-1].pk] = None
            item: Item = visible[-1].item
            return item

    def clear(self) -> None:
        """Remove all items."""
        with self._lock:
            self._own.clear()
            self._removals = dict.fromkeys(item.pk for item in self._earlier)

    def finish(self) -> None:
        """Queue the changes that are not stored yet; called when the handler has returned."""
        with self._lock:
            self._follows = False
            self._write_changes()

    def _visible(self) -> list[ConversationItem]:
        return [item for item in self._earlier if item.pk not in self._removals]

    def _write_changes(self) -> Future[Activity] | None:
        kept = _common_prefix(self._own, self._stored)
        removals = set(self._removals)
        if self._follows and kept == len(self._own) and removals <= self._stored_removals:
            return None
        self._follows = False
        if kept == len(self._own) == len(self._stored) and removals == self._stored_removals:
            return None
        operation = WriteTurn(
            agent_id=self._attempt.agent_id,
            fence=self._attempt.fence,
            turn=self._row,
            new=[(self._key(index), self._own[index]) for index in range(kept, len(self._own))],
            dropped_keys=[self._key(index) for index in range(kept, len(self._stored))],
            removed=sorted(removals - self._stored_removals),
            restored=sorted(self._stored_removals - removals),
        )
        self._stored, self._stored_removals = list(self._own), removals
        return self._attempt.write(operation)

    def _key(self, index: int) -> str:
        return f"{self._row.scope}#{index}"


_lock = threading.Lock()


async def turn_of(attempt: OwningAttempt, conversation: Conversation) -> Turn:
    """Return the turn of an attempt in a conversation, begun at the first call."""
    key = Turn, conversation.pk
    with _lock:
        begins = key not in attempt.locals
        future: Future[Turn] = attempt.locals.setdefault(key, Future())
    if begins:
        try:
            turn = await _begin(attempt, conversation)
        except BaseException as error:
            del attempt.locals[key]
            future.set_exception(error if isinstance(error, Exception) else RuntimeError("The run was canceled."))
            raise
        future.set_result(turn)
        attempt.add_completion_check(turn.finish)
    return await asyncio.shield(asyncio.wrap_future(future))


async def _begin(attempt: OwningAttempt, conversation: Conversation) -> Turn:
    turn, is_new = await sync_to_async(_load)(attempt, conversation)
    if is_new:
        begin = BeginTurn(agent_id=attempt.agent_id, fence=attempt.fence, turn=turn._row)
        await asyncio.shield(asyncio.wrap_future(attempt.write(begin)))
    return turn


def _load(attempt: OwningAttempt, conversation: Conversation) -> tuple[Turn, bool]:
    using = database()
    found = ConversationTurn.objects.using(using).filter(
        activity_id=attempt.agent_id, conversation_id=conversation.pk, scope=attempt.scope
    )
    row, items = found.first(), ConversationItem.objects.using(using).filter(conversation_id=conversation.pk)
    ordered = items.order_by("position", "id")
    if row is None:
        last = items.order_by().aggregate(last=Max("position"))["last"]
        row = ConversationTurn(
            activity_id=attempt.agent_id,
            conversation_id=conversation.pk,
            scope=attempt.scope,
            start=0 if last is None else last + 1,
        )
        earlier = ordered.filter(position__lt=row.start, removed_by=None)
        return Turn(attempt, row, list(earlier), []), True
    earlier = ordered.filter(Q(removed_by=None) | Q(removed_by=row.pk), position__lt=row.start)
    prefix = f"{row.scope}#"
    stored = [item for item in ordered.filter(activity_id=attempt.agent_id) if _is_of(item.key, prefix)]
    stored.sort(key=lambda item: int(item.key.removeprefix(prefix)))
    return Turn(attempt, row, list(earlier), [item.item for item in stored]), False


def _is_of(key: str, prefix: str) -> bool:
    return key.startswith(prefix) and key.removeprefix(prefix).isdigit()


def _common_prefix(one: Sequence[Item], other: Sequence[Item]) -> int:
    for index, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return index
    return min(len(one), len(other))
