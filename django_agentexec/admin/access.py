"""Permissions in the admin: Django's and those of the policy must both agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse

from ..models import Activity, ActivityQuerySet
from ..policy import Permission, get_policy
from .base import Base


class AccessAdmin(Base):
    """The permission methods of Django's admin, and those of the package's actions."""

    def get_queryset(self, request: HttpRequest) -> ActivityQuerySet:
        """Return the activities that the policy shows to the user, in no order: the list would add it to its own."""
        return visible(request, super().get_queryset(request).order_by())

    def has_add_permission(self, request: HttpRequest, *args: object) -> bool:
        """Activities are enqueued, not typed in."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Activity | None = None) -> bool:
        """Rows are written by the runs alone."""
        return False

    def has_view_permission(self, request: HttpRequest, obj: Activity | None = None) -> bool:
        """Whether the user has the permission `view_activity`, and the policy lets them."""
        return self._has(request, Permission.VIEW, obj)

    def has_cancel_permission(self, request: HttpRequest, obj: Activity | None = None) -> bool:
        """Whether the user has the permission `cancel_activity`, and the policy lets them."""
        return self._has(request, Permission.CANCEL, obj)

    def has_retry_permission(self, request: HttpRequest, obj: Activity | None = None) -> bool:
        """Whether the user has the permission `retry_activity`, and the policy lets them."""
        return self._has(request, Permission.RETRY, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Activity | None = None) -> bool:
        """Whether the user may delete an activity, which must have finished.

        Its attempt would continue, invisible and without a way to stop it, until its next write is refused.
        """
        return not (obj is not None and obj.is_active) and self.may_delete(request, obj)

    def may_delete(self, request: HttpRequest, obj: Activity | None = None) -> bool:
        """Whether the user has the permission `delete_activity`, and may view it."""
        return super().has_delete_permission(request, obj) and self.has_view_permission(request, obj)

    def has_monitor_permission(self, request: HttpRequest) -> bool:
        """Whether the user may see the dashboard, with workers and queues of everybody."""
        return self.has_view_permission(request) and get_policy().may_monitor(request.user)

    def render_page(
        self, request: HttpRequest, template: str, context: Mapping[str, Any], *, status: int = 200
    ) -> TemplateResponse:
        """Return a page of the package within the admin site: `template` with the site's context and `context`.

        `context` must contain `title` and `may_monitor`.
        """
        request.current_app = self.admin_site.name
        return TemplateResponse(
            request,
            f"admin/agentexec/activity/{template}",
            {
                **self.admin_site.each_context(request),
                "subtitle": None,
                "opts": self.opts,
                "media": self.media,
                **context,
            },
            status=status,
        )

    def _has(self, request: HttpRequest, permission: Permission, obj: Activity | None) -> bool:
        user = request.user
        return user.has_perm(f"{self.opts.app_label}.{permission}") and get_policy().may(user, permission, obj)


def visible(request: HttpRequest, activities: QuerySet[Activity]) -> ActivityQuerySet:
    """Return those of `activities` that the policy shows to the user."""
    assert isinstance(activities, ActivityQuerySet)
    return get_policy().visible(request.user, activities)
