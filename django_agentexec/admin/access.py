"""The base of the admins, and their permissions: Django's and those of the policy must both agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.contrib import messages
from django.contrib.admin import AdminSite
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.urls import reverse

from ..conf import conf
from ..models import Activity, ActivityQuerySet, Approval, ApprovalQuerySet, ApprovalStatus, Pause, PauseScope
from ..policy import Permission, Policy, get_policy
from ..registry import registry, unknown_task_note

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin

    Base = ModelAdmin[Activity]
elif apps.is_installed("unfold"):
    from unfold.admin import ModelAdmin as Base
else:
    from django.contrib.admin import ModelAdmin as Base

if TYPE_CHECKING:
    from ..policy import User

MAX_COUNTED = 99  # pending approvals that the tab counts


class SharedRowsAccess:
    """A mixin for `ModelAdmin`: only users who see all tenants change rows that apply to all of them."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may add rows."""
        return _sees_all_tenants(request) and bool(super().has_add_permission(request))  # type: ignore[misc]  # of ModelAdmin

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may change rows."""
        return _sees_all_tenants(request) and bool(super().has_change_permission(request, obj))  # type: ignore[misc]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may delete rows."""
        return _sees_all_tenants(request) and bool(super().has_delete_permission(request, obj))  # type: ignore[misc]


def warn_of_unknown_task(request: HttpRequest, name: str) -> None:
    """Add a warning if no task of this process has the name that a saved row has.

    Only users who see all tenants read the names of other tasks.
    """
    if note := unknown_task_note(name, names_others=_sees_all_tenants(request)):
        messages.warning(request, note)


def _sees_all_tenants(request: HttpRequest) -> bool:
    return get_policy().may_monitor(request.user)


class AccessAdmin(Base):
    """The permission methods of Django's admin, and those of the package's actions."""

    def get_queryset(self, request: HttpRequest) -> ActivityQuerySet:
        """Return the activities that the policy shows to the user, in no order: the list would add it to its own."""
        return visible(request, super().get_queryset(request).order_by())

    def has_add_permission(self, request: HttpRequest, *args: object) -> bool:
        """Return False: activities are enqueued, not typed in."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Activity | None = None) -> bool:
        """Return False: only runs write rows."""
        return False

    def has_view_permission(self, request: HttpRequest, obj: Activity | None = None) -> bool:
        """Return whether the user has the permission `view_activity`, and the policy lets them."""
        return self._has(request, Permission.VIEW, obj)

    def has_cancel_permission(self, request: HttpRequest, obj: Activity | None = None) -> bool:
        """Return whether the user has the permission `cancel_activity`, and the policy lets them."""
        return self._has(request, Permission.CANCEL, obj)

    def has_retry_permission(self, request: HttpRequest, obj: Activity | None = None) -> bool:
        """Return whether the user has the permission `retry_activity`, and the policy lets them."""
        return self._has(request, Permission.RETRY, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Activity | None = None) -> bool:
        """Return whether the user may delete an activity, which must have finished.

        Its attempt would continue, invisible and without a way to stop it, until its next write is refused.
        """
        return not (obj is not None and obj.is_active) and self.may_delete(request, obj)

    def may_delete(self, request: HttpRequest, obj: Activity | None = None) -> bool:
        """Return whether the user has the permission `delete_activity`, and may view it."""
        return super().has_delete_permission(request, obj) and self.has_view_permission(request, obj)

    def has_monitor_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may see the dashboard, with workers and queues of everybody."""
        return self.has_view_permission(request) and get_policy().may_monitor(request.user)

    def approvals_tab(self, request: HttpRequest) -> dict[str, Any]:
        """Return the contents of the tab *Approvals*."""
        return approvals_tab(request, self.admin_site)

    def render_page(
        self,
        request: HttpRequest,
        template: str,
        context: Mapping[str, Any],
        *,
        status: int = 200,
        folder: str = "activity",
    ) -> TemplateResponse:
        """Return a page with the tab *Approvals* and `context`, which must contain `title`."""
        own = {"may_monitor": self.has_monitor_permission(request), **self.approvals_tab(request), **context}
        return page_response(request, self, f"{folder}/{template}", own, status=status)

    def _has(self, request: HttpRequest, permission: Permission, obj: Activity | None) -> bool:
        user = request.user
        return user.has_perm(f"{self.opts.app_label}.{permission}") and get_policy().may(user, permission, obj)


def page_response(
    request: HttpRequest, model_admin: Any, template: str, context: Mapping[str, Any], *, status: int = 200
) -> TemplateResponse:
    """Return a page of the package within the admin site: `template` with the site's context and `context`.

    `context` must contain `title` and `may_monitor`.
    """
    site: AdminSite = model_admin.admin_site
    request.current_app = site.name
    own = {"subtitle": None, "opts": model_admin.opts, "media": model_admin.media}
    values = {**site.each_context(request), **own, **context}
    return TemplateResponse(request, f"admin/agentexec/{template}", values, status=status)


def visible(request: HttpRequest, activities: QuerySet[Activity]) -> ActivityQuerySet:
    """Return those of `activities` that the policy shows to the user."""
    assert isinstance(activities, ActivityQuerySet)
    return get_policy().visible(request.user, activities)


def approvals_tab(request: HttpRequest, site: AdminSite) -> dict[str, Any]:
    """Return the address of the inbox and the number of visible pending approvals; one query."""
    if not site.is_registered(Approval):
        return {}
    pending = visible_approvals(request).filter(status=ApprovalStatus.PENDING)
    number = pending.order_by()[: MAX_COUNTED + 1].count()
    return {
        "approvals_url": reverse(f"{site.name}:agentexec_approval_changelist"),
        "approvals_pending": f"{MAX_COUNTED}+" if number > MAX_COUNTED else str(number or ""),
    }


def visible_approvals(request: HttpRequest) -> ApprovalQuerySet:
    """Return the approvals of the activities that the policy shows to the user."""
    activities = visible(request, Activity.objects.all()).order_by()
    return Approval.objects.filter(activity__in=activities)


def may_decide(request: HttpRequest, found: Activity | None = None) -> bool:
    """Return whether the user has the permission `decide_approval`, and the policy lets them."""
    user = request.user
    label = Activity._meta.app_label
    return user.has_perm(f"{label}.{Permission.DECIDE}") and get_policy().may(user, Permission.DECIDE, found)


def may_pause(request: HttpRequest, scope: str = "", name: str = "") -> bool:
    """Return whether the user has the permission `pause_activity`, and the policy lets them pause this target.

    Without a scope: whether they may pause a declared queue, a task of this process or their own tenant.
    """
    if not _has_pause_permission(request):
        return False
    policy, user = get_policy(), request.user
    targets = [(scope, name)] if scope else _pause_targets(policy, user)
    return any(policy.may_pause(user, *target) for target in targets)


def _has_pause_permission(request: HttpRequest) -> bool:
    permission = f"{Activity._meta.app_label}.{Permission.PAUSE}"
    return request.user.has_perm(permission) and get_policy().may(request.user, Permission.PAUSE)


def _pause_targets(policy: Policy, user: User) -> Iterator[tuple[str, str]]:
    """Yield what a pause can apply to, as far as this process has it."""
    yield from ((PauseScope.QUEUE, str(name)) for name in conf.QUEUES)
    yield from ((PauseScope.TENANT, f"{key}={value}") for key, value in policy.stamp(user).items())
    yield from ((PauseScope.TASK, task.name) for task in registry.known())


def may_resume(request: HttpRequest, pause: Pause) -> bool:
    """Return whether the user has the permission `pause_activity`, and the policy lets them end this pause."""
    return _has_pause_permission(request) and get_policy().may_resume(request.user, pause)


def may_view_activities(request: HttpRequest) -> bool:
    """Return whether the user has the permission `view_activity`, and the policy lets them."""
    user = request.user
    label = Activity._meta.app_label
    return user.has_perm(f"{label}.{Permission.VIEW}") and get_policy().may(user, Permission.VIEW)


def may_monitor(request: HttpRequest) -> bool:
    """Return whether the user may view activities, with what belongs to no tenant."""
    return may_view_activities(request) and get_policy().may_monitor(request.user)
