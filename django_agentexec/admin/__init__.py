"""The admin: activities, their actions, and the live dashboard. Django's autodiscovery imports this."""

from __future__ import annotations

from django.contrib import admin

from ..models import Activity
from .activities import ActivityAdmin

admin.site.register(Activity, ActivityAdmin)

__all__ = ["ActivityAdmin"]
