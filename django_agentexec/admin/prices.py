"""The admin of prices: plain Django, with the models that have calls without a price."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.apps import apps
from django.contrib import admin
from django.utils.translation import gettext_lazy as _

from ..changelists import StorableLookups
from ..models import ModelPrice
from ..money import dollars
from .access import SharedRowsAccess

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin

    PriceBase = ModelAdmin[ModelPrice]
elif apps.is_installed("unfold"):
    from unfold.admin import ModelAdmin as PriceBase
else:
    from django.contrib.admin import ModelAdmin as PriceBase


class ModelPriceAdmin(StorableLookups, SharedRowsAccess, PriceBase):
    """Prices in US dollars for a million tokens, which take precedence over those of genai-prices."""

    list_display = ("pattern", "provider", "valid_from", "input", "cached", "output")
    list_filter = ("provider",)
    search_fields = ("pattern", "provider")
    fieldsets = (
        (None, {"fields": ("pattern", "provider", "valid_from")}),
        (
            _("US dollars for a million tokens"),
            {
                "fields": ("input_price", "cached_price", "output_price"),
                "description": _(
                    "Workers use a new price within a minute. Past calls keep their cost; calls without a price get "
                    "one by manage.py agentexec usage --reprice."
                ),
            },
        ),
    )

    @admin.display(description=_("Input"), ordering="input_price")
    def input(self, row: ModelPrice) -> str:
        """Return the price of input tokens."""
        return dollars(row.input_price)

    @admin.display(description=_("From cache"), ordering="cached_price")
    def cached(self, row: ModelPrice) -> str:
        """Return the price of cached tokens, which is that of input tokens by default."""
        return dollars(row.input_price if row.cached_price is None else row.cached_price)

    @admin.display(description=_("Output"), ordering="output_price")
    def output(self, row: ModelPrice) -> str:
        """Return the price of output tokens."""
        return dollars(row.output_price)
