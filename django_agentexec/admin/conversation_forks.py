"""The page that forks a conversation: a new conversation with the items up to a turn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _

from ..models import Conversation
from ..models.conversations import MAX_TITLE
from ..parsing import parse_digits
from .access import may_monitor
from .compose import composer_of

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin

    ConversationBase = ModelAdmin[Conversation]
else:
    from .access import Base as ConversationBase


class ForkPages(ConversationBase):
    """The view `<id>/fork/`."""

    def get_urls(self) -> list[URLPattern]:
        """Add the page."""
        page = path("<path:object_id>/fork/", self.admin_site.admin_view(self.fork), name="agentexec_conversation_fork")
        return [page, *super().get_urls()]

    def fork(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask for a title, and copy the conversation up to an item.

        Only a user who may write the next message may fork: a fork is a conversation to continue.
        """
        conversation: Conversation | None = self.get_object(request, unquote(object_id))
        item = None
        if conversation is not None and (key := parse_digits(request.GET.get("item", ""))) is not None:
            item = conversation.visible_items().filter(pk=key).first()
        if conversation is None or item is None:
            raise Http404(_("There is no such turn."))
        may_write = composer_of(request, conversation, monitors=may_monitor(request)) is not None
        if not may_write or not self.has_view_permission(request, conversation):
            raise PermissionDenied
        title = request.POST.get("title", _("Fork of %(title)s") % {"title": conversation})[:MAX_TITLE]
        if request.method == "POST":
            found = conversation.fork(item, title=title.replace("\0", "").strip())
            self.log_addition(request, found, _("Forked."))
            return HttpResponseRedirect(
                reverse(f"{self.admin_site.name}:agentexec_conversation_change", args=[found.pk])
            )
        context: dict[str, Any] = {"title": _("Fork the conversation"), "original": conversation, "fork_title": title}
        return self.render(request, "fork.html", {**context, "max_title": MAX_TITLE})  # type: ignore[attr-defined,no-any-return]  # of ConversationAdmin
