"""`DjangoSession`: the session protocol of the OpenAI Agents SDK on the database. It does not import the SDK."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from asgiref.sync import sync_to_async
from django.db import connections, transaction

from ..activity.store import database
from ..blocking import blocking
from ..current import OwningAttempt, current_attempt, origin
from ..exceptions import InvalidOption
from ..models import Conversation
from ..models.conversations import validate_session_id
from .history import Item, estimate_tokens, history_items, repaired, trimmed
from .turns import turn_of

if TYPE_CHECKING:
    from agents.memory import SessionSettings

T = TypeVar("T")


class DjangoSession:
    """The history of a conversation, as a session of the agents SDK: `Runner.run(..., session=DjangoSession("42"))`.

    The conversation is created with its first item; `owner` (a user, or the primary key of one) and `metadata` are
    those of a new conversation, by default those of the activity, or of the user in `activity.acting_as`. A run sees
    at most the latest `limit` items, of together at most about `max_tokens` tokens, and never the output of a tool
    call without the call. Calls without an output, which interrupted turns leave behind, are left out.

    In a handler, the items are those of its activity: a later attempt sees the history as the first attempt did, and
    adds no item twice. See the page on conversations.

    Raises `InvalidOption` for a session id, a limit or metadata that cannot be stored.
    """

    session_settings: SessionSettings | None = None
    """Settings of the SDK; their `limit` is that of `get_items`."""

    def __init__(
        self,
        session_id: str,
        *,
        owner: Any = None,
        metadata: Mapping[str, Any] | None = None,
        limit: int | None = None,
        max_tokens: int | None = None,
    ) -> None:
        self.session_id = validate_session_id(session_id)
        for name, value in (("limit", limit), ("max_tokens", max_tokens)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise InvalidOption(f"DjangoSession({name}={value!r}) must be a whole number from 1, or None.")
        self.owner = owner_key(owner)
        self.metadata = metadata
        self.limit = limit
        self.max_tokens = max_tokens

    def __repr__(self) -> str:
        return f"<DjangoSession {self.session_id!r}>"

    @classmethod
    def for_attempt(cls, attempt: OwningAttempt, **options: Any) -> DjangoSession:
        """Return the session of the conversation of which `attempt` is a turn. Takes the options of the class.

        Raises `InvalidOption` if the activity was enqueued without `conversation`.
        """
        if attempt.session_id is None:
            raise InvalidOption(
                f"Activity {attempt.agent_id} is not a turn of a conversation; enqueue it with conversation=..., or "
                "use DjangoSession(session_id)."
            )
        return cls(attempt.session_id, **options)

    async def get_items(self, limit: int | None = None) -> list[Any]:
        """Return the history, at most its latest `limit` items; by default those of the session's own limits."""
        limit = self._limit(limit)
        max_tokens = self.max_tokens
        attempt = _recording_attempt()
        if attempt is None:
            history = await _in_thread(self._stored_items)
            return trimmed(repaired(history), limit, max_tokens, self.count_tokens)
        turn = await turn_of(attempt, await self.aconversation())
        return trimmed(repaired(turn.items, turn.own_start), limit, max_tokens, self.count_tokens)

    async def add_items(self, items: Sequence[Any]) -> None:
        """Append items in the form of the SDK's input. Raises `InvalidOption`, and in a handler `StaleAttempt`."""
        checked = history_items(items)
        if not checked:
            return
        attempt = _recording_attempt()
        if attempt is None:
            await _in_thread(self._append, checked)
        else:
            turn = await turn_of(attempt, await self.aconversation())
            await turn.add(checked)

    async def pop_item(self) -> Any:
        """Remove the latest item and return it; None if there is none.

        In a handler, a removal is stored with the next item, or when the handler has returned.
        """
        attempt = _recording_attempt()
        if attempt is None:
            return await _in_thread(self._pop)
        return (await turn_of(attempt, await self.aconversation())).pop()

    async def clear_session(self) -> None:
        """Remove all items. In a handler this is stored with the next item, or when the handler has returned."""
        attempt = _recording_attempt()
        if attempt is None:
            await _in_thread(self._clear)
        else:
            (await turn_of(attempt, await self.aconversation())).clear()

    @blocking
    def conversation(self) -> Conversation:
        """Return the conversation, which is created if there is none."""
        attempt, user_id = current_attempt(), origin().user_id
        metadata = attempt.metadata if attempt is not None and self.metadata is None else self.metadata
        manager = Conversation.objects.db_manager(database())
        return manager.get_or_create_session(self.session_id, self.owner or user_id, metadata)

    async def aconversation(self) -> Conversation:
        """Async version of `conversation`."""
        return await _in_thread(self.conversation)

    def count_tokens(self, item: Item) -> int:
        """Return the number of tokens of an item, for `max_tokens`: an estimate from its length. Override it."""
        return estimate_tokens(item)

    def _limit(self, limit: int | None) -> int | None:
        if limit is not None:
            return limit
        settings: Any = self.session_settings
        own = settings.get("limit") if isinstance(settings, Mapping) else getattr(settings, "limit", None)
        return self.limit if own is None else own

    def _found(self) -> Conversation | None:
        return Conversation.objects.using(database()).filter(session_id=self.session_id).first()

    def _stored_items(self) -> list[Item]:
        found = self._found()
        return [] if found is None else list(found.visible_items().values_list("item", flat=True))

    def _append(self, items: list[Item]) -> None:
        self.conversation().append(items)

    def _pop(self) -> Item | None:
        found = self._found()
        while found is not None:
            with transaction.atomic(using=found._state.db):
                last = found.visible_items().last()
                if last is None:
                    return None
                item: Item = last.item
                if found.items.filter(pk=last.pk).delete()[0]:
                    return item
        return None

    def _clear(self) -> None:
        found = self._found()
        if found is not None:
            found.items.all().delete()


def owner_key(owner: Any) -> str | None:
    """Return the primary key of a user as text; text and None stay as they are."""
    if owner is None or isinstance(owner, str):
        return owner
    key = getattr(owner, "pk", owner)
    return None if key is None else str(key)


def _recording_attempt() -> OwningAttempt | None:
    """Return the attempt whose handler calls, unless it is that of a unit test."""
    attempt = current_attempt()
    return attempt if attempt is not None and attempt.root.records_calls else None


async def _in_thread(function: Callable[..., T], *arguments: Any) -> T:
    return await sync_to_async(_with_usable_connection)(function, *arguments)


def _with_usable_connection(function: Callable[..., T], *arguments: Any) -> T:
    """Call `function` with a connection that is not broken: nothing closes those of threads outside of requests."""
    connection = connections[database()]
    if not connection.in_atomic_block:
        connection.close_if_unusable_or_obsolete()
    return function(*arguments)
