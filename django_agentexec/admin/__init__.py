"""The admin: activities, their actions, and the live dashboard. Django's autodiscovery imports this."""

from __future__ import annotations

from django.contrib import admin

from ..models import Activity, Conversation
from .activities import ActivityAdmin
from .conversations import ConversationAdmin

admin.site.register(Activity, ActivityAdmin)
admin.site.register(Conversation, ConversationAdmin)

__all__ = ["ActivityAdmin", "ConversationAdmin"]
