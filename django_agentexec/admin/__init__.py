"""The admin: activities, their actions, and the live dashboard. Django's autodiscovery imports this."""

from __future__ import annotations

from django.contrib import admin

from ..models import Activity, ModelPrice
from .activities import ActivityAdmin
from .prices import ModelPriceAdmin

admin.site.register(Activity, ActivityAdmin)
admin.site.register(ModelPrice, ModelPriceAdmin)

__all__ = ["ActivityAdmin", "ModelPriceAdmin"]
