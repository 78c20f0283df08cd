"""The admin: activities, their actions, and the live dashboard. Django's autodiscovery imports this."""

from __future__ import annotations

from django.contrib import admin

from ..models import Activity, Approval, Conversation, ModelPrice
from .activities import ActivityAdmin
from .approvals import ApprovalAdmin
from .conversations import ConversationAdmin
from .prices import ModelPriceAdmin

admin.site.register(Activity, ActivityAdmin)
admin.site.register(Approval, ApprovalAdmin)  # type: ignore[misc]  # its base is typed for activities
admin.site.register(Conversation, ConversationAdmin)
admin.site.register(ModelPrice, ModelPriceAdmin)

__all__ = ["ActivityAdmin", "ApprovalAdmin", "ConversationAdmin", "ModelPriceAdmin"]
