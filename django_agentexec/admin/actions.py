"""Cancel, retry and delete: actions of the list, for selected or all matching activities, and pages of one activity.

Both ask for confirmation first, and end with a message about the number of changed and unchanged activities.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .. import activity
from ..activity.bulk import reason_text
from ..exceptions import NotAuthorized
from ..ids import uuid7
from ..models import Activity, ActivityQuerySet
from ..parsing import parse_id
from ..tasks.authorization import check_retry_authorized
from . import bulk
from .access import AccessAdmin
from .formatting import count_text
from .pagination import AtLeast, bounded_count
from .row_actions import CANCEL, DELETE, RETRY, RETRY_FRESH, Action, retry_from
from .status import badge

PREVIEW = 10  # rows that the confirmation names

MayChange = Callable[[HttpRequest, Activity], bool]


class SteeringAdmin(AccessAdmin):
    """The actions of the list, and of one activity."""

    actions = ["cancel_selected", "retry_selected", "delete_selected"]

    def get_urls(self) -> list[URLPattern]:
        """Add the pages that ask before one activity is canceled or retried."""
        pages = [
            path(
                f"<path:object_id>/{action.name}/",
                self.admin_site.admin_view(partial(self.change_one, action=action)),
                name=f"agentexec_activity_{action.name}",
            )
            for action in (CANCEL, RETRY)
        ]
        return [*pages, *super().get_urls()]

    @admin.action(permissions=["cancel"], description=gettext_lazy("Cancel selected activities"))
    def cancel_selected(self, request: HttpRequest, queryset: QuerySet[Activity]) -> HttpResponse | None:
        """Cancel what is queued or running."""
        return self._change_many(request, queryset, CANCEL)

    @admin.action(permissions=["retry"], description=gettext_lazy("Run selected activities again"))
    def retry_selected(self, request: HttpRequest, queryset: QuerySet[Activity]) -> HttpResponse | None:
        """Queue what is in error or canceled once more."""
        return self._change_many(request, queryset, RETRY)

    @admin.action(permissions=["delete"], description=gettext_lazy("Delete selected activities"))
    def delete_selected(self, request: HttpRequest, queryset: QuerySet[Activity]) -> HttpResponse | None:
        """Delete what has finished. Takes the place of Django's action, which lists every line of every log."""
        return self._change_many(request, queryset, DELETE)

    def _change_many(self, request: HttpRequest, queryset: QuerySet[Activity], action: Action) -> HttpResponse | None:
        assert isinstance(queryset, ActivityQuerySet)
        action = _chosen(request, action)
        is_across = request.POST.get("select_across") not in (None, "", "0")
        until = _id(request.POST.get("until"))
        if request.POST.get("post") and (until or not is_across):
            # What was enqueued after the question was asked was not asked about.
            self._change(request, queryset.filter(agent_id__lte=until) if is_across else queryset, action)
            return None
        selected = request.POST.getlist(helpers.ACTION_CHECKBOX_NAME)
        hidden = [
            ("action", request.POST["action"]),
            *((helpers.ACTION_CHECKBOX_NAME, value) for value in (selected[:1] if is_across else selected)),
            *([("select_across", "1"), ("until", str(uuid7()))] if is_across else []),
        ]
        return self._ask(request, queryset, action, hidden=hidden, back=request.get_full_path())

    def change_one(self, request: HttpRequest, object_id: str, action: Action) -> HttpResponse:
        """Ask whether to cancel or retry one activity and, once confirmed, do it."""
        found = self.get_object(request, unquote(object_id))
        if found is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)  # type: ignore[attr-defined,no-any-return]  # Django's own, unknown to the stubs
        if not self._may(action)(request, found):
            raise PermissionDenied
        chosen = self.get_queryset(request).filter(pk=found.pk)
        page = reverse(f"{self.admin_site.name}:agentexec_activity_change", args=[found.pk])
        step = request.GET.get("from_step") if action is RETRY else None
        action = retry_from(step) if step else _chosen(request, action)
        if request.method != "POST":
            return self._ask(request, chosen, action, original=found, back=page)
        self._change(request, chosen, action)
        return HttpResponseRedirect(page)

    def _may(self, action: Action) -> MayChange:
        # `delete_many` checks under its lock whether the activity has finished, and returns the reason.
        if action is DELETE:
            return self.may_delete
        permitted: MayChange = getattr(self, f"has_{action.name}_permission")
        if action is CANCEL:
            return permitted
        return lambda request, found: permitted(request, found) and _is_authorized(request, found)

    def _change(self, request: HttpRequest, activities: ActivityQuerySet, action: Action) -> None:
        assert request.user.pk is not None
        with activity.acting_as(request.user):
            tally = bulk.run(action, activities, request.user.pk, partial(self._may(action), request))
        if tally.done:
            self.message_user(request, action.done % {"count": tally.done}, messages.SUCCESS)
        if refused := tally.refused.total():
            reasons = ", ".join(
                f"{count_text(count)} {reason_text(reason)}" for reason, count in tally.refused.most_common()
            )
            text = ngettext(
                "%(count)d activity was left as it is: %(reasons)s.",
                "%(count)d activities were left as they are: %(reasons)s.",
                refused,
            )
            self.message_user(request, text % {"count": refused, "reasons": reasons}, messages.WARNING)
        if not tally.done and not refused:
            self.message_user(request, _("There was nothing left to change."), messages.WARNING)

    def _ask(
        self, request: HttpRequest, activities: ActivityQuerySet, action: Action, *, back: str, **context: Any
    ) -> TemplateResponse:
        candidates = action.candidates(activities)
        count, matching = bounded_count(candidates), bounded_count(activities)
        title = action.question % {"count": count, "number": int(count)}
        return self.render_page(
            request,
            "confirm.html",
            {
                "title": title,
                "action": action,
                "offers_fresh": action is RETRY,
                "count": count,
                # Two lower bounds have no known difference.
                "others": 0 if isinstance(matching, AtLeast) else matching - count,
                "preview": _preview(candidates),
                "more": max(0, count - PREVIEW),
                "back": back,
                **context,
            },
        )


def _preview(candidates: ActivityQuerySet) -> list[Activity]:
    """Return the newest candidates, each with its badge."""
    found = list(candidates.without_payloads().order_by("-agent_id")[:PREVIEW])
    for row in found:
        row.badge = badge(row)  # type: ignore[attr-defined]  # for the template
    return found


def _is_authorized(request: HttpRequest, found: Activity) -> bool:
    """Return whether the task lets the user run it with the stored context."""
    try:
        check_retry_authorized(request.user, found.agent_id)
    except NotAuthorized:
        return False
    return True


def _id(text: str | None) -> UUID | None:
    try:
        return parse_id(text or "")
    except ValueError:
        return None


def _chosen(request: HttpRequest, action: Action) -> Action:
    """Return the fresh form of a retry if the user has chosen it."""
    return RETRY_FRESH if action is RETRY and request.POST.get("fresh") else action
