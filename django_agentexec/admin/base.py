"""The `ModelAdmin` to build on: django-unfold's where that app is installed, else Django's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.apps import apps

from ..models import Activity

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin

    Base = ModelAdmin[Activity]
elif apps.is_installed("unfold"):
    from unfold.admin import ModelAdmin as Base
else:
    from django.contrib.admin import ModelAdmin as Base

__all__ = ["Base"]
