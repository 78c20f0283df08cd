"""`Conversation`, its items, and the turns of activities that write them: the history of conversations with agents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db import connections, models, transaction
from django.db.models import Max, Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from ..blocking import blocking
from ..conversations.history import history_items
from ..exceptions import InvalidOption
from ..expressions import Scalar, metadata_holds, parse_candidates, same_values
from ..ids import uuid7
from ..translation import gettext
from ..validation import is_storable, validate_metadata
from .activities import Activity

MAX_SESSION_ID = 255
MAX_TITLE = 255
MAX_SCOPE = 200
FORK_BATCH = 500  # items of one statement


class ConversationQuerySet(models.QuerySet["Conversation"]):
    """Queries of conversations."""

    def for_same_metadata(self, /, **metadata: str | int | float | bool | None) -> ConversationQuerySet:
        """Return the conversations whose metadata has these values, as `ActivityQuerySet.for_same_metadata`."""
        found = self
        for key, value in metadata.items():
            found = found._with_any_value(key, same_values(value))
        return found

    def for_metadata_text(self, key: str, *texts: str) -> ConversationQuerySet:
        """Return the conversations whose metadata has one of `texts`, as `ActivityQuerySet.for_metadata_text`."""
        return self._with_any_value(key, [value for text in texts for value in parse_candidates(text)])

    def owned_by(self, user: Any) -> ConversationQuerySet:
        """Return the conversations of a user; none for an anonymous user."""
        key = getattr(user, "pk", None)
        return self.none() if key is None else self.filter(owner=str(key))

    def get_or_create_session(
        self, session_id: str, owner: str | None = None, metadata: Mapping[str, Any] | None = None
    ) -> Conversation:
        """Return the conversation with this session id, which is created if there is none.

        Owner and metadata are those of a new conversation. Raises `InvalidOption`.
        """
        values = {"owner": owner, "metadata": validate_metadata(metadata)}
        return self.get_or_create(session_id=validate_session_id(session_id), defaults=values)[0]

    @blocking
    def import_history(
        self,
        session_id: str,
        items: Iterable[Mapping[str, Any]],
        *,
        owner: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Conversation:
        """Append items in the form of the SDK's input to a conversation, which is created if there is none.

        All items or none are stored. Raises `InvalidOption` for an item that is not a JSON object.
        """
        checked = history_items(list(items))
        with transaction.atomic(using=self.db):
            conversation = self.get_or_create_session(session_id, owner, metadata)
            conversation.append(checked)
        return conversation

    async def aimport_history(
        self,
        session_id: str,
        items: Iterable[Mapping[str, Any]],
        *,
        owner: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Conversation:
        """Async version of `import_history`."""
        return await sync_to_async(self.import_history)(session_id, items, owner=owner, metadata=metadata)

    def _with_any_value(self, key: str, values: Iterable[Scalar]) -> ConversationQuerySet:
        has_containment = bool(connections[self.db].features.supports_json_field_contains)
        condition = metadata_holds(key, values, has_containment=has_containment)
        return self.none() if condition is None else self.filter(condition)


if TYPE_CHECKING:

    class ConversationManager(ConversationQuerySet, models.Manager["Conversation"]):  # type: ignore[misc]
        """The manager of conversations, with the methods of `ConversationQuerySet`."""

else:
    ConversationManager = models.Manager.from_queryset(ConversationQuerySet, class_name="ConversationManager")


class Conversation(models.Model):  # type: ignore[django-manager-missing]  # as of Activity
    """A conversation of a person with agents; each turn of an agent is an activity."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    session_id = models.CharField(_("session id"), max_length=MAX_SESSION_ID, unique=True)
    title = models.CharField(_("title"), max_length=MAX_TITLE, blank=True, default="")
    owner = models.CharField(
        _("owner"), max_length=255, null=True, blank=True, help_text=_("Primary key of a user; null: code.")
    )
    metadata = models.JSONField(_("metadata"), default=dict, blank=True)
    created_at = models.DateTimeField(_("created at"), default=timezone.now)
    updated_at = models.DateTimeField(_("updated at"), default=timezone.now)

    objects: ClassVar[ConversationManager] = ConversationManager()

    class Meta:
        db_table = "agentexec_conversation"
        verbose_name = _("conversation")
        verbose_name_plural = _("conversations")
        default_permissions = ("view", "delete")
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["owner", "id"], condition=Q(owner__isnull=False), name="agentexec_conversation_owner")
        ]
        # On PostgreSQL a migration also creates a GIN index on `metadata`.

    def __str__(self) -> str:
        return self.title or self.session_id

    @property
    def lock_key(self) -> str:
        """The lock key of the activities that are its turns."""
        return f"conversation:{self.pk}"

    def visible_items(self) -> models.QuerySet[ConversationItem]:
        """Return its items in order, without those that a turn has removed."""
        return self.items.filter(removed_by=None).order_by("position", "id")

    @blocking
    def append(self, items: Iterable[Any]) -> None:
        """Store JSON objects as its last items, written by no activity."""
        using = self._state.db or "default"
        with transaction.atomic(using=using):
            append_items(using, self.pk, [ConversationItem(item=item) for item in items])
            # Not before the commit: the transactions of workers must not wait for the caller's.
            transaction.on_commit(self._touch, using=using)

    async def aappend(self, items: Iterable[Any]) -> None:
        """Async version of `append`."""
        await sync_to_async(self.append)(items)

    @blocking
    def fork(self, last: ConversationItem, *, title: str = "") -> Conversation:
        """Return a new conversation with the items up to `last`, for the same owner and with the same metadata.

        Its turns continue from there; this conversation stays as it is. Raises `InvalidOption` for an item of another
        conversation, and for a title that is too long.
        """
        if last.conversation_id != self.pk:
            raise InvalidOption(f"The item {last.pk} is not of the conversation {self.pk}; fork its own conversation.")
        if len(title) > MAX_TITLE or not is_storable(title):
            raise InvalidOption(f"The title {title!r:.80} must be text of at most {MAX_TITLE} characters without NUL.")
        using = self._state.db or "default"
        is_before = Q(position__lt=last.position) | Q(position=last.position, id__lte=last.pk)
        with transaction.atomic(using=using):
            found = Conversation.objects.using(using).create(
                session_id=f"{self.session_id[: MAX_SESSION_ID - 50]}-fork-{uuid7()}",
                title=title,
                owner=self.owner,
                metadata=self.metadata,
            )
            copies = [
                ConversationItem(
                    conversation=found,
                    position=position,
                    item=row.item,
                    activity_id=row.activity_id,
                    key=row.key,
                    created_at=row.created_at,
                )
                for position, row in enumerate(self.visible_items().filter(is_before))
            ]
            ConversationItem.objects.using(using).bulk_create(copies, batch_size=FORK_BATCH)
        return found

    async def afork(self, last: ConversationItem, *, title: str = "") -> Conversation:
        """Async version of `fork`."""
        return await sync_to_async(self.fork)(last, title=title)

    def _touch(self) -> None:
        Conversation.objects.using(self._state.db).filter(pk=self.pk).update(updated_at=timezone.now())


class ConversationTurn(models.Model):
    """The use of a conversation by an activity (in a pipeline: by a step): the beginning of its history.

    Later attempts see the items before `start`, also those that an earlier attempt has removed.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    conversation = models.ForeignKey(
        Conversation, on_delete=models.CASCADE, related_name="turns", verbose_name=_("conversation")
    )
    activity = models.ForeignKey(
        Activity, on_delete=models.CASCADE, related_name="conversation_turns", db_index=False,
        verbose_name=_("activity"),
    )  # fmt: skip
    scope = models.CharField(_("scope"), max_length=MAX_SCOPE, blank=True, default="", help_text=_("The step."))
    start = models.PositiveIntegerField(_("start"), help_text=_("The position after the last item at its beginning."))
    created_at = models.DateTimeField(_("created at"), default=timezone.now)

    class Meta:
        db_table = "agentexec_conversation_turn"
        verbose_name = _("conversation turn")
        verbose_name_plural = _("conversation turns")
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(fields=["activity", "conversation", "scope"], name="agentexec_turn"),
        ]

    def __str__(self) -> str:
        return f"{self.activity_id} {self.scope}".strip()


class ConversationItem(models.Model):
    """An item of a conversation in the form of the model's API: a message, a tool call, its output, ..."""

    conversation = models.ForeignKey(
        Conversation, on_delete=models.CASCADE, related_name="items", db_index=False, verbose_name=_("conversation")
    )
    position = models.PositiveIntegerField(
        _("position"), help_text=_("Not decreasing from 0; equal if two writers wrote at the same moment.")
    )
    item = models.JSONField(_("item"))
    activity = models.ForeignKey(
        Activity, models.SET_NULL, null=True, blank=True, related_name="conversation_items", db_index=False,
        verbose_name=_("activity"), help_text=_("The activity that wrote it; null: code outside of activities."),
    )  # fmt: skip
    key = models.CharField(
        _("key"), max_length=255, blank=True, default="",
        help_text=_("Its place among the items that the activity writes; a later attempt writes none twice."),
    )  # fmt: skip
    removed_by = models.UUIDField(
        _("removed by"), null=True, blank=True,
        help_text=_("The turn that removed it; null: it is part of the history."),
    )  # fmt: skip
    created_at = models.DateTimeField(_("created at"), default=timezone.now)

    class Meta:
        db_table = "agentexec_conversation_item"
        verbose_name = _("conversation item")
        verbose_name_plural = _("conversation items")
        default_permissions = ("view",)
        ordering = ["position", "id"]
        constraints = [
            models.UniqueConstraint(
                fields=["activity", "conversation", "key"],
                condition=Q(activity__isnull=False),
                name="agentexec_item_key",
            ),
        ]
        indexes = [models.Index(fields=["conversation", "position", "id"], name="agentexec_item_position")]

    def __str__(self) -> str:
        kind = self.item.get("role") or self.item.get("type") if isinstance(self.item, dict) else ""
        return f"{self.position} {kind}"


def append_items(using: str, conversation_id: UUID, rows: list[ConversationItem]) -> None:
    """Insert new rows after the last item. Two writers at the same moment do not wait for each other."""
    all_items = ConversationItem.objects.using(using).filter(conversation_id=conversation_id).order_by()
    last = all_items.aggregate(last=Max("position"))["last"]
    for position, row in enumerate(rows, 0 if last is None else last + 1):
        row.conversation_id, row.position = conversation_id, position
    ConversationItem.objects.using(using).bulk_create(rows)


def validate_session_id(session_id: object) -> str:
    """Return the id of a session; raise `InvalidOption` unless it is text of 1 to 255 characters."""
    is_valid = isinstance(session_id, str) and len(session_id.strip()) >= 1 and len(session_id) <= MAX_SESSION_ID
    if not is_valid or not is_storable(str(session_id)):
        text = gettext("The session id %(session_id)s must be text of 1 to %(maximum)s characters.")
        raise InvalidOption(text % {"session_id": f"{session_id!r:.300}", "maximum": MAX_SESSION_ID})
    return str(session_id)
