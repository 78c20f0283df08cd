"""The admin: activities, their actions, and the live dashboard. Django's autodiscovery imports this."""

from __future__ import annotations

from django.contrib import admin

from ..models import Activity, Approval
from .activities import ActivityAdmin
from .approvals import ApprovalAdmin

admin.site.register(Activity, ActivityAdmin)
admin.site.register(Approval, ApprovalAdmin)  # type: ignore[misc]  # its base is typed for activities

__all__ = ["ActivityAdmin", "ApprovalAdmin"]
