"""Conversations over REST: the list, and the items of a conversation."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.db.models import Q
from django.utils.translation import gettext as _
from drf_spectacular.utils import OpenApiParameter
from pydantic import Field
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from ..calls.content import public_item
from ..conf import conf
from ..models import Conversation, ConversationQuerySet
from ..parsing import parse_id
from ..policy import TenantPolicy, get_policy
from ..schemas import ConversationItemSchema, ConversationItemsSchema, ConversationListSchema, ConversationSchema
from .base import AgentView
from .openapi import operation, query_parameters
from .parameters import MAX_ID, MAX_PAGE_SIZE, Paging, QueryParameters, metadata_of
from .permissions import MayViewConversations

if TYPE_CHECKING:
    from ..policy import User


class ConversationPaging(Paging):
    """The page of the list, and its filters."""

    session_id: str | None = Field(None, max_length=255, description="Only the conversation with this session id.")
    owner: str | None = Field(None, max_length=255, description="Only conversations of the user with this primary key.")


class ItemPaging(QueryParameters):
    """The part of a conversation."""

    after: int | None = Field(None, ge=0, le=MAX_ID, description="The id of an item; return the items after it.")
    limit: int = Field(100, ge=1, le=MAX_PAGE_SIZE, description="Items in the response.")


def _list_parameters() -> list[OpenApiParameter]:
    return query_parameters(ConversationPaging)


class ConversationListView(AgentView):
    """The list of visible conversations."""

    permission_classes = [MayViewConversations]

    @operation("list_conversations", {200: ConversationListSchema}, errors=[400, 404], parameters=_list_parameters)
    def get(self, request: Request) -> Response:
        """List conversations in pages, the latest first.

        Parameters of the form `metadata.<key>=<value>` filter by metadata, as in the list of activities.
        """
        paging = ConversationPaging.read(request, allow_metadata=True)
        found = _visible(request.user)
        if paging.session_id is not None:
            found = found.filter(session_id=paging.session_id)
        if paging.owner is not None:
            found = found.filter(owner=paging.owner)
        for key, values in metadata_of(request).items():
            found = found.for_metadata_text(key, *values)
        first = (paging.page - 1) * paging.page_size
        if first >= conf.COUNT_LIMIT:
            text = _("Page %(page)s is beyond the %(limit)s conversations that are counted. Narrow the list.")
            raise NotFound(text % {"page": paging.page, "limit": f"{conf.COUNT_LIMIT:,}"})
        rows = found.order_by("-id")[first : first + paging.page_size]
        total = found.order_by()[: conf.COUNT_LIMIT + 1].count()
        page = ConversationListSchema(
            items=[ConversationSchema.model_validate(row) for row in rows],
            total=min(total, conf.COUNT_LIMIT),
            total_is_bounded=total > conf.COUNT_LIMIT,
            page=paging.page,
            page_size=paging.page_size,
        )
        return Response(page.model_dump(mode="json"))


class ConversationItemsView(AgentView):
    """The items of a conversation."""

    permission_classes = [MayViewConversations]

    @operation(
        "list_conversation_items",
        {200: ConversationItemsSchema},
        errors=[400, 404],
        parameters=partial(query_parameters, ItemPaging),
    )
    def get(self, request: Request, conversation_id: str) -> Response:
        """Return the items of a conversation in order, at most `limit`.

        To read all, send as `after` the `id` of the last item received, until `has_more` is false. Items that a
        compaction has removed are left out. Without the monitor permission, outputs of tools that failed are neutral.
        """
        paging = ItemPaging.read(request)
        found = visible_conversation(request.user, conversation_id)
        items = found.visible_items()
        if paging.after is not None:
            last = found.items.filter(pk=paging.after).first()
            if last is None:
                raise NotFound(_("This conversation has no item %(id)s.") % {"id": paging.after})
            items = items.filter(Q(position__gt=last.position) | Q(position=last.position, id__gt=last.pk))
        rows = list(items[: paging.limit + 1])
        if not self.monitors:
            for row in rows:
                row.item = public_item(row.item)
        shown = [ConversationItemSchema.model_validate(row) for row in rows[: paging.limit]]
        part = ConversationItemsSchema(items=shown, has_more=len(rows) > paging.limit)
        return Response(part.model_dump(mode="json"))


def visible_conversation(user: User, conversation_id: str) -> Conversation:
    """Return a conversation that is visible to the user. Raises 404."""
    try:
        found = _visible(user).filter(pk=parse_id(conversation_id)).first()
    except ValueError:
        found = None
    if found is None:
        raise NotFound(_("There is no conversation %(id)s.") % {"id": conversation_id})
    return found


def conversation_for_turn(user: User, session_id: str, metadata: Mapping[str, Any]) -> Conversation:
    """Return the conversation with this session id, which is created if there is none.

    Raises 404, with nothing written, for a conversation that is not visible to the user, or that belongs to another
    tenant than the activity with this metadata: its tenant could read the history in the activity.
    """
    conversations = Conversation.objects.all()
    with transaction.atomic(using=conversations.db):
        owner = None if user.pk is None else str(user.pk)
        row = Conversation.objects.db_manager(conversations.db).get_or_create_session(session_id, owner, metadata)
        policy = get_policy()
        visible = policy.visible_conversations(user, conversations).filter(pk=row.pk)
        if isinstance(policy, TenantPolicy):
            tenant = {key: metadata[key] for key in policy.keys if key in metadata}
            visible = visible.for_same_metadata(**tenant)
        if not visible.exists():
            raise NotFound(_("There is no conversation %(id)s.") % {"id": session_id})
    return row


def _visible(user: User) -> ConversationQuerySet:
    return get_policy().visible_conversations(user, Conversation.objects.all())
