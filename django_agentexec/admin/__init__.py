"""The admin: activities, their actions, and the live dashboard. Django's autodiscovery imports this."""

from __future__ import annotations

from django.contrib import admin

from ..models import (
    Activity,
    Approval,
    Budget,
    BudgetLedger,
    ConcurrencyLimit,
    Conversation,
    ModelPrice,
    Pause,
)
from .activities import ActivityAdmin
from .approvals import ApprovalAdmin
from .budgets import BudgetAdmin, BudgetLedgerAdmin
from .concurrency import ConcurrencyLimitAdmin, PauseAdmin
from .conversations import ConversationAdmin
from .prices import ModelPriceAdmin

admin.site.register(Activity, ActivityAdmin)
admin.site.register(Approval, ApprovalAdmin)  # type: ignore[misc]  # its base is typed for activities
admin.site.register(Budget, BudgetAdmin)
admin.site.register(BudgetLedger, BudgetLedgerAdmin)
admin.site.register(Conversation, ConversationAdmin)
admin.site.register(ModelPrice, ModelPriceAdmin)
admin.site.register(ConcurrencyLimit, ConcurrencyLimitAdmin)
admin.site.register(Pause, PauseAdmin)

__all__ = [
    "ActivityAdmin",
    "ApprovalAdmin",
    "BudgetAdmin",
    "BudgetLedgerAdmin",
    "ConcurrencyLimitAdmin",
    "ConversationAdmin",
    "ModelPriceAdmin",
    "PauseAdmin",
]
