"""Permissions for REST framework, which call the policy of the settings.

A view first looks for an activity among the visible activities (404), then checks the permission on it (403).
"""

from __future__ import annotations

from typing import ClassVar

from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from ..models import Activity
from ..policy import Permission, get_policy


class PolicyPermission(BasePermission):
    """A permission of the policy: in general, and on an activity."""

    permission: ClassVar[Permission]

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Return whether the user has the permission in general."""
        return get_policy().may(request.user, self.permission)

    def has_object_permission(self, request: Request, view: APIView, obj: Activity) -> bool:
        """Return whether the user has the permission on the activity."""
        return get_policy().may(request.user, self.permission, obj)


class MayView(PolicyPermission):
    """The permission to view activities."""

    permission = Permission.VIEW


class MayCancel(PolicyPermission):
    """The permission to cancel activities."""

    permission = Permission.CANCEL


class MayRetry(PolicyPermission):
    """The permission to retry activities."""

    permission = Permission.RETRY


class MayEnqueue(PolicyPermission):
    """The permission to enqueue tasks."""

    permission = Permission.ENQUEUE


class MayViewConversations(PolicyPermission):
    """The permission to view conversations."""

    permission = Permission.VIEW_CONVERSATION


class MayDecide(PolicyPermission):
    """The permission to decide approvals."""

    permission = Permission.DECIDE


class MayPause(PolicyPermission):
    """The permission to pause and resume in general; `Policy.may_pause` decides about each queue, task and tenant."""

    permission = Permission.PAUSE


class MayMonitor(BasePermission):
    """The monitor permission: workers, queues and metrics."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Return whether the user has the monitor permission."""
        return get_policy().may_monitor(request.user)


class MayUseApi(BasePermission):
    """The permission to view activities or to enqueue tasks."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Return whether the user has one of the two permissions."""
        policy = get_policy()
        return policy.may(request.user, Permission.VIEW) or policy.may(request.user, Permission.ENQUEUE)
