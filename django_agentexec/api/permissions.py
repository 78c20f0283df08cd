"""REST framework's permissions, each a question to the policy of the settings.

A view first looks an activity up among the visible ones (404), then asks for the permission on it (403).
"""

from __future__ import annotations

from typing import ClassVar

from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from ..models import Activity
from ..policy import Permission, get_policy


class PolicyPermission(BasePermission):
    """Whether the policy lets the caller do `permission`: at all, then on the activity."""

    permission: ClassVar[Permission]

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Ask whether the caller may do this at all."""
        return get_policy().may(request.user, self.permission)

    def has_object_permission(self, request: Request, view: APIView, obj: Activity) -> bool:
        """Ask whether the caller may do this to the activity."""
        return get_policy().may(request.user, self.permission, obj)


class MayView(PolicyPermission):
    """May see activities."""

    permission = Permission.VIEW


class MayCancel(PolicyPermission):
    """May cancel activities."""

    permission = Permission.CANCEL


class MayRetry(PolicyPermission):
    """May retry activities."""

    permission = Permission.RETRY


class MayEnqueue(PolicyPermission):
    """May enqueue tasks from outside."""

    permission = Permission.ENQUEUE


class MayMonitor(BasePermission):
    """May see workers, queues and metrics."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Ask the policy."""
        return get_policy().may_monitor(request.user)


class MayUseApi(BasePermission):
    """May see activities or enqueue tasks: whoever has a use for the API's description."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Ask the policy for either."""
        policy = get_policy()
        return policy.may(request.user, Permission.VIEW) or policy.may(request.user, Permission.ENQUEUE)
