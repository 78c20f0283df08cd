"""The admin of conversations: a list, a page that reads as a chat, and an export. Items are read-only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Q, QuerySet, Sum
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
    JsonResponse,
)
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _

from ..calls.content import public_item
from ..conversations.history import estimate_tokens
from ..costs.library import context_window
from ..exceptions import AgentExecError
from ..models import (
    ACTIVE,
    DECISIONS,
    Activity,
    AgentCall,
    Approval,
    ApprovalStatus,
    CallKind,
    CallState,
    Conversation,
    ConversationItem,
    ConversationQuerySet,
    Status,
)
from ..parsing import parse_digits, parse_id
from ..policy import Permission, get_policy
from ..validation import is_storable
from .access import approvals_tab, may_decide, may_monitor, may_view_activities, page_response, visible
from .actors import user_names
from .addresses import socket_path
from .approval_cards import card, name_assignees
from .chat import Turn, open_turns, turns_of
from .compose import MAX_MESSAGE, composer_of
from .conversation_forks import ForkPages
from .formatting import compact, count_text, moment, money, total_tokens
from .metadata import metadata_columns
from .pagination import row_page
from .texts import script_texts

PAGE_SIZE = 50  # conversations on a page of the list
MAX_ITEMS = 300  # of a conversation on one page
MAX_ACTIVITIES = 300  # of a conversation, the newest
MAX_CARDS = 20  # decisions on one page


class ConversationAdmin(ForkPages):
    """Conversations, read-only except for their deletion."""

    def get_urls(self) -> list[URLPattern]:
        """Add the export, and the message to the agent."""
        view = self.admin_site.admin_view
        pages = [
            path("<path:object_id>/export/", view(self.export), name="agentexec_conversation_export"),
            path("<path:object_id>/message/", view(self.send_message), name="agentexec_conversation_message"),
        ]
        return [*pages, *super().get_urls()]

    def get_queryset(self, request: HttpRequest) -> ConversationQuerySet:
        """Return the conversations that the policy shows to the user."""
        found: Any = super().get_queryset(request)
        return get_policy().visible_conversations(request.user, found)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return False: conversations are written by code."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Conversation | None = None) -> bool:
        """Return False: conversations are written by code."""
        return False

    def has_view_permission(self, request: HttpRequest, obj: Conversation | None = None) -> bool:
        """Return whether the user has the permission `view_conversation`, and the policy agrees."""
        user = request.user
        is_permitted = user.has_perm(f"{self.opts.app_label}.{Permission.VIEW_CONVERSATION}")
        return is_permitted and get_policy().may(user, Permission.VIEW_CONVERSATION)

    def has_delete_permission(self, request: HttpRequest, obj: Conversation | None = None) -> bool:
        """Return whether the user may delete a conversation, in which no activity may be active."""
        if obj is not None and obj.activities.filter(status__in=ACTIVE).exists():
            return False
        return super().has_delete_permission(request, obj) and self.has_view_permission(request, obj)

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        """Return no bulk actions."""
        return {}

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Conversation | None:
        """Return a visible conversation, or None."""
        try:
            return self.get_queryset(request).filter(pk=parse_id(object_id)).first()
        except ValueError:
            return None

    def get_deleted_objects(
        self, objs: Sequence[Conversation] | QuerySet[Conversation], request: HttpRequest
    ) -> tuple[list[str], dict[str, int], set[str], list[str]]:
        """Return what Django's page of a deletion names: the conversation, and the number of its items."""
        items = ConversationItem.objects.filter(conversation__in=objs).count()
        counts = {str(self.opts.verbose_name_plural): len(objs), str(_("items")): items}
        return [str(each) for each in objs], counts, set(), []

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the list, the newest first."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        query = request.GET.get("q", "").strip()
        page = row_page(request, _searched(self.get_queryset(request), query).order_by("-id"), PAGE_SIZE)
        return self.render(
            request,
            "list.html",
            {
                "title": _("Conversations"),
                "rows": _list_rows(request, page.rows),
                "columns": metadata_columns(),
                "query": query,
                "page_number": page.number,
                "newer": page.number - 1,
                "older": page.number + 1 if page.has_more else None,
                **(extra_context or {}),
            },
        )

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show a conversation. There is no form."""
        if object_id is None or request.method not in ("GET", "HEAD"):
            raise PermissionDenied
        conversation = self.get_object(request, unquote(object_id))
        if conversation is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)  # type: ignore[attr-defined,no-any-return]  # Django's own, unknown to the stubs
        if not self.has_view_permission(request, conversation):
            raise PermissionDenied
        return self._chat_page(request, conversation, extra_context or {})

    def _chat_page(
        self, request: HttpRequest, conversation: Conversation, extra_context: dict[str, Any], status: int = 200
    ) -> HttpResponse:
        before = parse_digits(request.GET.get("before", ""))
        context = _chat(request, conversation, before)
        _add_cards(request, context["turns"], may_decide_here=self.admin_site.is_registered(Approval))
        context |= {
            "may_delete": self.has_delete_permission(request, conversation),
            "composer": composer_of(request, conversation, monitors=may_monitor(request)) if before is None else None,
            "is_live": before is None and status == 200,
            "socket": socket_path(),
            "texts": script_texts(),
            "next": request.get_full_path(),
            "max_message": MAX_MESSAGE,
        }
        return self.render(request, "detail.html", {**context, **extra_context}, status=status)

    def send_message(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Enqueue the next turn of a conversation with a message."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        conversation = self.get_object(request, unquote(object_id))
        if conversation is None:
            raise Http404(_("There is no conversation %(id)s.") % {"id": object_id})
        composer = composer_of(request, conversation, monitors=may_monitor(request))
        if composer is None or not self.has_view_permission(request, conversation):
            raise PermissionDenied
        text = request.POST.get("message", "").replace("\r\n", "\n")
        try:
            composer.send(request, conversation, text)
        except (AgentExecError, PermissionDenied) as refusal:
            draft = {"draft": text, "draft_error": str(refusal)}
            return self._chat_page(request, conversation, draft, status=400)
        self.log_change(request, conversation, _("Message sent."))
        url = reverse(f"{self.admin_site.name}:agentexec_conversation_change", args=[conversation.pk])
        return HttpResponseRedirect(f"{url}#ae-compose")

    def export(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Return all items as a JSON file, which `Conversation.objects.import_history` reads."""
        conversation = self.get_object(request, unquote(object_id))
        if conversation is None:
            raise Http404(_("There is no conversation %(id)s.") % {"id": object_id})
        if not self.has_view_permission(request, conversation):
            raise PermissionDenied
        items: list[Any] = list(conversation.visible_items().values_list("item", flat=True))
        if not may_monitor(request):
            items = [public_item(item) for item in items]
        response = JsonResponse(items, safe=False, json_dumps_params={"ensure_ascii": False, "indent": 1})
        response["Content-Disposition"] = f'attachment; filename="conversation-{conversation.pk}.json"'
        return response

    def render(
        self, request: HttpRequest, template: str, context: dict[str, Any], *, status: int = 200
    ) -> TemplateResponse:
        """Return a page with the tabs that the user may see, and `context`."""
        values = {
            "may_monitor": may_monitor(request),
            "may_view_activities": may_view_activities(request),
            **(approvals_tab(request, self.admin_site) if may_view_activities(request) else {}),
            **context,
        }
        return page_response(request, self, f"conversation/{template}", values, status=status)


def _searched(conversations: ConversationQuerySet, query: str) -> ConversationQuerySet:
    """Return the conversations that the search finds: by the beginning of the session id, by owner, or by id."""
    if not query:
        return conversations
    if not is_storable(query):
        return conversations.none()
    condition = Q(session_id__startswith=query) | Q(owner=query) | Q(title__startswith=query)
    with suppress(ValueError):
        condition |= Q(pk=parse_id(query))
    return conversations.filter(condition)


def _list_rows(request: HttpRequest, rows: Sequence[Conversation]) -> list[dict[str, Any]]:
    """Return the rows of the list with the numbers of their activities; three queries."""
    ids = [row.pk for row in rows]
    activities = visible(request, Activity.objects.all()).filter(conversation_id__in=ids).order_by()
    counts = activities.values("conversation_id").annotate(
        turns=Count("pk"),
        active=Count("pk", filter=Q(status__in=ACTIVE)),
        failed=Count("pk", filter=Q(status=Status.ERROR)),
        cost_sum=Sum("cost"),
    )
    numbers: dict[UUID, dict[str, Any]] = {each["conversation_id"]: {**each} for each in counts}
    names = user_names({row.owner for row in rows if row.owner})
    columns = metadata_columns()
    return [
        {
            "conversation": row,
            "owner": names.get(row.owner or "", row.owner or ""),
            "cells": [(column.label, column.html(row)) for column in columns],
            "turns": count_text(numbers.get(row.pk, {}).get("turns", 0)),
            "active": numbers.get(row.pk, {}).get("active", 0),
            "failed": numbers.get(row.pk, {}).get("failed", 0),
            "cost": money(cost) if (cost := numbers.get(row.pk, {}).get("cost_sum")) is not None else "",
            "created": moment(row.created_at),
            "updated": moment(row.updated_at),
        }
        for row in rows
    ]


def _add_cards(request: HttpRequest, turns: Sequence[Turn], *, may_decide_here: bool) -> None:
    """Add the decisions that activities wait for to their turns; one query if there are any."""
    waiting = {
        turn.foot.activity.pk: turn for turn in turns if turn.foot and turn.foot.activity.waiting_for in DECISIONS
    }
    if not waiting:
        return
    pending = Approval.objects.filter(activity_id__in=waiting, status=ApprovalStatus.PENDING).order_by("id")
    for approval in name_assignees(list(pending[:MAX_CARDS])):
        turn = waiting[approval.activity_id]
        assert turn.foot is not None
        decides = may_decide_here and may_decide(request, turn.foot.activity)
        turn.cards = [*turn.cards, card(approval, may_decide=decides)]


def _chat(request: HttpRequest, conversation: Conversation, before: int | None) -> dict[str, Any]:
    """Return the contents of the page."""
    items = conversation.visible_items()
    if before is not None and (limit := items.filter(pk=before).first()) is not None:
        items = items.filter(Q(position__lt=limit.position) | Q(position=limit.position, id__lt=limit.pk))
    found = list(items.order_by("-position", "-id")[: MAX_ITEMS + 1])
    shown = found[:MAX_ITEMS][::-1]
    if not may_monitor(request):
        for item in shown:
            item.item = public_item(item.item)
    rows = visible(request, Activity.objects.all()).filter(
        Q(conversation_id=conversation.pk) | Q(pk__in={item.activity_id for item in shown if item.activity_id})
    )
    newest = rows.without_payloads().order_by("-agent_id")[:MAX_ACTIVITIES]
    activities = {row.agent_id: row for row in sorted(newest, key=lambda row: row.created_at)}
    turns = turns_of(shown, activities)
    if before is None:
        turns += open_turns(activities.values(), turns)
    costs = [row.cost for row in activities.values() if row.cost is not None]
    tokens = sum(total_tokens(row.usage) for row in activities.values())
    return {
        "title": conversation.title or conversation.session_id,
        "original": conversation,
        "owner": user_names({conversation.owner}).get(conversation.owner, conversation.owner)
        if conversation.owner
        else "",
        "facts": [
            (column.label, column.html(conversation)) for column in metadata_columns() if column.text(conversation)
        ],
        "turns": turns,
        "earlier": shown[0].pk if len(found) > MAX_ITEMS else None,
        "max_items": MAX_ITEMS,
        "item_count": count_text(conversation.visible_items().count()),
        "activity_count": count_text(len(activities)),
        "tokens": compact(tokens) if tokens else "",
        "cost": money(sum(costs[1:], costs[0])) if costs else "",
        "window": _window(activities),
        "history_tokens": compact(sum(estimate_tokens(item.item) for item in shown)),
        "is_whole": before is None and len(found) <= MAX_ITEMS,
        "created": moment(conversation.created_at),
        "updated": moment(conversation.updated_at),
    }


@dataclass(frozen=True)
class Window:
    """The size of the latest call of a model, and of the window that it must fit into."""

    model: str
    tokens: str
    size: str
    percentage: int | None
    """None if the size is not known."""


def _window(activities: Mapping[UUID, Activity]) -> Window | None:
    """Return the context window of the latest call of a run's own agent; one query."""
    calls = AgentCall.objects.current().filter(activity_id__in=list(activities), kind=CallKind.MODEL, path="")
    call = calls.filter(state=CallState.DONE, input_tokens__gt=0).order_by("-started_at", "-id").first()
    if call is None:
        return None
    size = context_window(call.name, call.provider, call.started_at)
    used = call.input_tokens + call.output_tokens
    percentage = min(100, round(100 * used / size)) if size else None
    return Window(call.name, compact(used), compact(size) if size else "", percentage)
